'use strict';
'require view';
'require poll';
'require dom';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.mesh as mesh';
'require wireguard-uplink.paths as paths';
'require wireguard-uplink.plot as plot';
'require wireguard-uplink.reasons as reasons';
'require wireguard-uplink.redraw as redraw';
'require wireguard-uplink.serving as serving';
'require wireguard-uplink.words as words';

/*
 * The overview: asks the service again and again, keeps the last replies, and has its parts draw
 * them. Knows what a session may change; what the replies mean, its parts know.
 */

const STATUS_S = 1;
const LISTS_S = 5;
const HISTORY = 50;

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load: function() {
		this.track = plot.track();
		this.mayChange = L.hasViewPermission() !== false;
		this.places = {};
		this.methods = [];
		return Promise.all([ this.askStatus(), this.askLists(), bus.methods().then((names) => { this.methods = names; }) ]);
	},

	render: function() {
		const section = (name, title, buttons) => E('div', { 'class': 'cbi-section' }, [
			title ? E('h3', {}, [ title ]) : '',
			this.places[name] = E('div', { 'id': 'wgup-' + name + '-section' }),
			E('p', {}, buttons || [])
		]);
		const nodes = E('div', { 'class': 'cbi-map' }, [
			E('link', { 'rel': 'stylesheet', 'href': L.resource('wireguard-uplink/uplink.css') }),
			E('h2', {}, [ _('Backup uplinks') ]),
			E('div', { 'class': 'cbi-map-descr' }, [ _('When the own line is dead, traffic leaves by the internet of another router of the mesh.') ]),
			this.mayChange ? '' : E('p', { 'id': 'wgup-readonly' }, [ _('You may look, but not change anything: this login only reads.') ]),
			this.places.error = E('div', { 'role': 'alert' }),
			section('indicator', ''),
			section('paths', _('Paths'), [ this.button('wgup-by-hand', _('Add an uplink by hand…'), null, () => mesh.addByHand(this)) ]),
			section('offers', _('Offers of the mesh')),
			section('serving', _('This line for others')),
			section('trust', _('Trusted peers')),
			section('history', _('History'))
		]);

		this.draw();
		poll.add(() => this.followStatus(), STATUS_S);
		poll.add(() => this.askLists().then(() => this.drawLists()), LISTS_S);
		return nodes;
	},

	/* A button that calls `action`. `allowed` is whether it makes sense now; 'always' is for what
	 * changes nothing, so that everybody may do it. */
	button: function(id, text, label, action, allowed) {
		const forbidden = allowed === false || (!this.mayChange && allowed != 'always');

		return E('button', {
			'class': 'btn cbi-button', 'type': 'button', 'id': id, 'aria-label': label,
			'disabled': forbidden ? '' : null, 'click': action
		}, [ text ]);
	},

	/* Show that something is under way and what came of it, then look again. */
	act: function(sentence, work, done) {
		return dialog.progress(sentence, work, done).then(() => Promise.all([ this.askStatus(), this.askLists() ])).then(() => this.draw());
	},

	askStatus: function() {
		return bus.ask('uplink_status').then((status) => {
			this.failure = null;
			this.status = status;
			paths.remember(this.track, status);
		}, (error) => { this.failure = error; });
	},

	/* What has just happened is in the lists too: they don't wait for their turn then. */
	followStatus: function() {
		const newest = (status) => JSON.stringify(status && status.events[0]);
		const before = newest(this.status);

		return this.askStatus().then(() => {
			this.drawStatus();
			return newest(this.status) == before ? null : this.askLists().then(() => this.drawLists());
		});
	},

	askLists: function() {
		const asked = [ bus.ask('uplink_list'), bus.ask('uplink_consumers'), bus.ask('uplink_trust'), bus.ask('uplink_history', { limit: HISTORY }) ];

		return Promise.all(asked).then(([ list, consumers, trust, history ]) => {
			Object.assign(this, { list, consumers, trust, history });
		}, (error) => { this.failure = error; });
	},

	draw: function() {
		this.drawStatus();
		this.drawLists();
	},

	drawStatus: function() {
		redraw.into(this.places.error, this.failure ? [ E('p', { 'class': 'wgup-problem' }, [ this.failure.message ]) ] : []);
		if (!this.status)
			return;
		redraw.into(this.places.indicator, paths.now(this).concat([ E('p', { 'id': 'wgup-switches' }, [
			this.button('wgup-failover', this.status.auto_failover ? _('Turn automatic failover off…') : _('Turn automatic failover on'), null, () => paths.turnFailover(this))
		].concat(this.questions()))]));
		redraw.into(this.places.paths, [ paths.table(this) ]);
	},

	/* What the service on this router can be asked; one of an older release can't be asked all. */
	questions: function() {
		const ask = (method, id, text, action, allowed) => this.methods.includes(method)
			? [ ' ', this.button(id, text, null, action, allowed) ] : [];

		return [].concat(
			ask('uplink_explain', 'wgup-why', _('Why?'), () => reasons.why(), 'always'),
			ask('uplink_simulate', 'wgup-what-if', _('What if…'), () => reasons.whatIf(this), 'always'),
			ask('uplink_drill', 'wgup-rehearse', _('Rehearse…'), () => reasons.rehearse(this), this.status.uplinks.length > 0));
	},

	drawLists: function() {
		if (!this.list)
			return;
		redraw.into(this.places.offers, [ mesh.offers(this) ]);
		redraw.into(this.places.serving, serving.section(this));
		redraw.into(this.places.trust, [ mesh.trust(this) ]);
		redraw.into(this.places.history, [ this.drawHistory() ]);
	},

	drawHistory: function() {
		const titles = [ _('When'), _('What'), _('Why'), _('How fast') ];
		const speed = (each) => [
			each.detection_ms < 0 && each.switch_ms < 0 ? '' : _('noticed in %d ms, moved in %d ms').format(Math.max(0, each.detection_ms), Math.max(0, each.switch_ms)),
			each.outage_ms >= 0 ? _('%d ms without internet').format(each.outage_ms) : ''
		].filter(Boolean).join(', ');

		if (!this.history.events.length)
			return E('p', {}, [ _('Nothing has happened yet.') ]);
		return E('table', { 'class': 'table wgup', 'id': 'wgup-history' }, [
			E('tr', { 'class': 'tr table-titles' }, titles.map((title) => E('th', { 'class': 'th' }, [ title ])))
		].concat(this.history.events.map((each) => E('tr', { 'class': 'tr' }, [
			new Date(each.at).toLocaleString(),
			[ words.event(each.kind), each.family, each.peer_id ].filter(Boolean).join(', '),
			each.cause, speed(each)
		].map((text, i) => E('td', { 'class': 'td', 'data-title': titles[i] }, [ text ]))))));
	}
});
