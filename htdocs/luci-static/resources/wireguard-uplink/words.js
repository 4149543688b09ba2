'use strict';
'require baseclass';
'require wireguard-uplink.sentences as sentences';

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
const COSTS = { 'free': _('free'), 'metered': _('metered'), 'unknown': _('cost unknown'), 'nearly spent': _('nearly used up') };
const FAMILY = { ipv4: 'IPv4', ipv6: 'IPv6' };

function number(value, digits) {
	return new Intl.NumberFormat(document.documentElement.lang || undefined, { maximumFractionDigits: digits || 0 }).format(value);
}

return baseclass.extend({
	number: number,
	/* A sentence of the service, with the WANs' names for their devices. */
	reason: (sentence, status) => sentences.translate(L.toArray(status && status.wans).reduce((text, wan) =>
		text.split(' ').map((word) => word.replace(/[:,;]$/, '') == wan.device ? word.replace(wan.device, wan.path) : word).join(' '), sentence || '')),
	family: (name) => FAMILY[name] || name,
	cost: (name) => COSTS[name] || name,

	mark: function(kind, text) {
		return E('span', { 'class': 'wgup-mark wgup-' + kind }, [ text ]);
	},

	state: function(name) {
		const known = STATES[name] || [ 'idle', name ];
		return this.mark(known[0], known[1]);
	},

	ms: (value) => value < 0 ? '–' : _('%s ms').format(number(value, value < 10 ? 1 : 0)),
	percent: (value) => _('%s %%').format(number(value)),
	gb: (value) => _('%s GB').format(number(value, 1)),
	rate: (kbps) => kbps < 1000 ? _('%s kbit/s').format(number(kbps)) : _('%s Mbit/s').format(number(kbps / 1000, 1)),
	bytes: (value) => value < 1e9 ? _('%s MB').format(number(value / 1e6, value < 1e7 ? 1 : 0)) : _('%s GB').format(number(value / 1e9, 1)),

	/* A time span in the largest unit that fits; a dash for one that is not known. */
	span: function(seconds) {
		if (seconds < 0)
			return '–';
		if (seconds < 100)
			return _('%s s').format(number(seconds));
		if (seconds < 6000)
			return _('%s min').format(number(seconds / 60));
		if (seconds < 172800)
			return _('%s h').format(number(seconds / 3600));
		return _('%s days').format(number(seconds / 86400));
	},

	offerCost: (offer) => (offer.metered ? COSTS.metered : COSTS.free)
		+ (offer.quota_left_gb >= 0 ? ', ' + _('%s GB left').format(number(offer.quota_left_gb, 1)) : ''),

	/* A path as people call it: the name of a WAN, or the peer behind a backup. */
	path: function(status, name) {
		const uplink = L.toArray(status.uplinks).find((each) => each.interface == name);
		const wan = L.toArray(status.wans).find((each) => each.device == name);

		return uplink ? uplink.peer_id : wan ? wan.path : name || _('nothing');
	},

	/* The one word for where things are; an unwatched network is worse than one that is on a backup. */
	stateOf: (status) => !status.enabled || !status.auto_failover && status.state != 'stranded' ? 'disabled' : status.state,

	kindOf: function(status) {
		const kinds = { primary: 'good', suspect: 'warn', failed_over: 'warn', holding: 'warn', stranded: 'bad', disabled: 'bad' };
		return kinds[this.stateOf(status)] || 'idle';
	},

	/* Is the internet working, and by which way: one sentence without numbers. */
	now: function(status) {
		const name = this.path(status, status.active_path), wan = (status.primary || {}).path || name;

		switch (this.stateOf(status)) {
		case 'primary':
			return status.by_hand && status.by_hand.path != 'wan'
				? _('The internet works, through %s: you chose it.').format(name)
				: _('The internet works, by %s.').format(name);
		case 'suspect':
			return _('%s is losing packets; traffic still uses it.').format(name);
		case 'failed_over':
			return status.by_hand
				? _('The internet works, through %s: you chose it.').format(name)
				: _('%s is down. The internet works, through %s.').format(wan, name);
		case 'holding':
			return _('%s is back. Traffic returns to it soon, from %s.').format(wan, name);
		case 'stranded':
			return _('There is no internet: no WAN and no backup answers.');
		}
		return status.enabled ? _('Automatic failover is off: traffic stays on %s even when it fails.').format(name)
			: _('The service is disabled: nothing happens when %s fails.').format(name);
	},

	/* What happens if the way in use fails. */
	next: function(status) {
		const name = this.path(status, status.active_path);
		const wan = status.wans.find((each) => each.device != status.active_path && [ 'up', 'suspect' ].includes(each.state));
		const uplink = status.uplinks.find((each) => each.usable && !each.active);
		const to = wan ? wan.path : uplink ? uplink.peer_id : '';

		if ([ 'stranded', 'disabled' ].includes(this.stateOf(status)))
			return '';
		if (!to)
			return _('If %s fails, there is no internet: no backup is ready.').format(name);
		return _('If %s fails, traffic moves to %s within %s s.').format(name, to, number(status.detection_bound_ms / 1000, 1));
	},

	/* The one thing to do: its sentence and what a button for it does ('' for none). */
	advice: function(status, offers) {
		const portal = status.wans.find((each) => each.portal);
		const offer = (offers || []).find((each) => each.usable && !each.configured) || (offers || []).find((each) => !each.trusted && !each.configured);

		if (!status.enabled)
			return [ _('Enable the service in the settings.'), 'settings' ];
		if (portal)
			return [ _('%s wants a login: open %s').format(portal.path, portal.portal), '' ];
		if (status.state == 'stranded')
			return [ _('Look at modem and cables, then check this router.'), 'check' ];
		if (!status.auto_failover)
			return [ _('Turn automatic failover on.'), 'failover' ];
		if (status.state == 'failed_over' && !status.by_hand)
			return [ _('Have %s mended: look at its modem and cables.').format((status.primary || {}).path), '' ];
		if (status.uplinks.some((each) => each.usable))
			return status.problems.length ? [ this.reason(status.problems[0]), 'check' ] : [ _('Nothing to do.'), '' ];
		if (status.uplinks.length)
			return [ _('No backup is ready: %s.').format(this.reason(status.uplinks[0].reason)), 'check' ];
		if (offer)
			return [ _('No backup is ready: %s offers its internet.').format(offer.peer_id), 'add', offer.peer_id ];
		return [ _('No backup is ready, and no peer offers its internet: ask the owner of another router of the mesh to offer it.'), '' ];
	}
});
