'use strict';
'require baseclass';

/*
 * How things are called and numbers are written on all pages, and what an owner wants to know first.
 * A mark is a word with a coloured edge: the colour repeats what the word says. Everything that comes
 * from the bus becomes a text node.
 */

const STATES = {
	up: [ 'good', _('works') ],
	suspect: [ 'warn', _('loses packets') ],
	degraded: [ 'warn', _('slow or lossy') ],
	down: [ 'bad', _('down') ],
	connecting: [ 'warn', _('connecting') ],
	unknown: [ 'idle', _('not tested yet') ],
	captive: [ 'warn', _('login needed') ],
	trusted: [ 'good', _('trusted') ],
	unbound: [ 'warn', _('to be confirmed') ],
	untrusted: [ 'idle', _('not trusted') ],
	changed: [ 'bad', _('key changed') ]
};
const COSTS = { free: _('free'), metered: _('metered'), unknown: _('cost unknown'), 'nearly spent': _('nearly used up') };

/* What the codes of the service's sentences say (reasons.py there, by uplink_texts). */
let texts = {};
const inLanguage = _;  // of what is no literal here
const UNITS = [ [ 0, 1, '–' ], [ 100, 1, _('%s s') ], [ 6000, 60, _('%s min') ], [ 172800, 3600, _('%s h') ], [ Infinity, 86400, _('%s days') ] ];
const FORMATS = [ 0, 1 ].map((digits) => new Intl.NumberFormat(document.documentElement.lang || undefined, { maximumFractionDigits: digits }));

/* Numbers in sentences may be ports. */
const plain = new Intl.NumberFormat(document.documentElement.lang || undefined, { useGrouping: false, maximumFractionDigits: 6 });

/* A number in the reader's way, with at most `digits` (0 or 1) behind the point. */
function number(value, digits) {
	return FORMATS[digits || 0].format(value);
}

function mark(kind, text) {
	return E('span', { class: 'wgup-mark wgup-' + kind }, [ text ]);
}

/* A service's sentence, as nodes: between quotation marks are a program's own words. */
function quoted(text) {
	return text.split(/[“„«](.+)[”“»]/).map((each, i) => i % 2 ? E('q', { lang: 'en' }, [ each.trim() ]) : each);
}

return baseclass.extend({
	READS: _('This login may look, but change nothing here. Log in as a user who may.'),
	number,
	quoted,

	/* Take the reply of uplink_texts. */
	learn(reply) {
		texts = Object.fromEntries(reply.texts.map((each) => [ each.code, each.text ]));
	},

	/* The sentence `name` of a reply in the reader's language, with the WANs' names for their devices;
	 * what is not known stays as it came. */
	said(reply, name, status) {
		return this.text((reply[name + '_code'] || '').split('/'), L.toArray(reply[name + '_args']), status) || reply[name] || '';
	},

	/* A sentence by its codes, each of which is the end of the one before; '' where one is not known. */
	text([ code, ...rest ], given, status) {
		const text = inLanguage(texts[code] || ''), own = rest.length ? text.split('%s').length - 2 : given.length;
		const end = rest.length ? this.text(rest, given.slice(own), status) : ' ';
		const filled = given.slice(0, own).map((each) => /^\d+(\.\d+)?$/.test(each) ? plain.format(each) : status ? this.path(status, each) : each);

		return end && text.format(...filled, end);
	},

	cost: (name) => COSTS[name] || name,
	left: (gb) => gb < 0 ? '' : _('%s GB left').format(number(gb, 1)),

	url: (page) => L.url('admin/network/wireguard-uplink/' + page),
	sheet: () => E('link', { rel: 'stylesheet', href: L.resource('wireguard-uplink/uplink.css') }),

	mark,

	inUse: () => mark('good', _('in use')),
	note: (...content) => E('div', { class: 'wgup-note' }, content),
	bad: (text) => E('p', { class: 'wgup-problem wgup-bad' }, quoted(text)),
	dotted: (...parts) => parts.filter(Boolean).join(' · '),

	/* A table; a row is its id and its cells. */
	table(id, titles, rows) {
		return E('table', { class: 'table wgup', id }, [
			E('tr', { class: 'tr table-titles' }, titles.map((title) => E('th', { class: 'th' }, [ title ])))
		].concat(rows.map(([ name, ...cells ]) => E('tr', { class: 'tr', id: name }, cells.map((cell, i) =>
			E('td', { class: titles[i] ? 'td' : 'td right', 'data-title': titles[i] || null }, [].concat(cell)))))));
	},

	state(name) {
		return this.mark(...(STATES[name] || [ 'idle', name ]));
	},

	ms: (value) => value < 0 ? '–' : _('%s ms').format(number(value, value < 10 ? 1 : 0)),
	percent: (value) => _('%s %%').format(number(value)),
	rate: (kbps) => kbps < 1000 ? _('%s kbit/s').format(number(kbps)) : _('%s Mbit/s').format(number(kbps / 1000, 1)),
	bytes: (value) => value < 1e9 ? _('%s MB').format(number(value / 1e6, value < 1e7 ? 1 : 0)) : _('%s GB').format(number(value / 1e9, 1)),

	/* A time span in the largest unit that fits; a dash for one that is not known. */
	span(seconds) {
		const [ , unit, text ] = UNITS.find(([ most ]) => seconds < most);

		return text.format(number(seconds / unit));
	},

	offerCost(offer) {
		return [ offer.metered ? COSTS.metered : COSTS.free, this.left(offer.quota_left_gb) ].filter(Boolean).join(', ');
	},

	/* A path as people call it: the name of a WAN, or the peer behind a backup. */
	path(status, name) {
		const uplink = L.toArray(status.uplinks).find((each) => each.interface == name);
		const wan = L.toArray(status.wans).find((each) => each.device == name);

		return uplink ? uplink.peer_id : wan ? wan.path : name || _('nothing');
	},

	problem(status, i) {
		const { code, args } = L.toArray(status.problem_codes)[i] || {};

		return quoted(this.said({ is: status.problems[i], is_code: code, is_args: args }, 'is', status));
	},

	/* An unwatched network is worse than one that is on a backup. */
	kindOf: (status) => !status.enabled || !status.auto_failover || status.state == 'stranded' ? 'bad' : status.state == 'primary' ? 'good' : 'warn',

	/* Told while settings that LuCI applied may be put back. */
	rollback: () => E('div', { class: 'wgup-now wgup-bad', id: 'wgup-rollback' }, [
		E('strong', [ _('Settings that were just applied are not confirmed.') ]), _('Until they are, or are put back by themselves, nothing can be changed here.')
	])
});
