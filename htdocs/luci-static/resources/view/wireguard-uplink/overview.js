'use strict';
'require view';
'require poll';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.cards as cards';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.draw as draw';
'require wireguard-uplink.history as history';
'require wireguard-uplink.peers as peers';
'require wireguard-uplink.redraw as redraw';
'require wireguard-uplink.serving as serving';
'require wireguard-uplink.words as words';

/*
 * The overview: asks the service for its pulse again and again, for everything else when that says
 * that something happened, and has its parts draw the last replies. A hidden page asks nothing.
 */

const PULSE_S = 6;
const SERIES_S = 600;
const HISTORY = 50;

return view.extend({
	handleSave: null,
	handleSaveApply: null,
	handleReset: null,

	load() {
		Object.assign(this, { mayChange: L.hasViewPermission() !== false, places: {}, shown: {}, signs: {}, rates: {}, search: '', span: 'hour', seriesAt: 0 });
		return this.look();
	},

	render() {
		const section = (name, title) => E('div', { class: 'cbi-section' }, [
			title ? E('h3', [ title ]) : '',
			this.places[name] = E('div', { id: 'wgup-' + name + '-section' })
		]);

		this.root = E('div', { class: 'cbi-map wgup-all' }, [
			words.sheet(),
			E('h2', [ _('Backup uplinks') ]),
			this.mayChange ? '' : E('p', { id: 'wgup-readonly' }, [ words.READS ]),
			this.places.error = E('div', { role: 'alert' }),
			section('now'),
			section('guide'),
			section('wans', _('Your WANs')),
			section('backups', _('Backups, in the order of use')),
			section('peers', _('Peers')),
			section('serving', _('Your internet for peers')),
			section('history', _('History')),
			section('more')
		]);

		this.draw();
		poll.add(() => document.hidden ? Promise.resolve() : this.follow(), PULSE_S);
		document.addEventListener('visibilitychange', () => document.hidden || this.root.isConnected && this.follow());
		return this.root;
	},

	/* A button that calls `action`. `subject` is the id of what it is for, where its text doesn't say.
	 * `allowed` is whether it makes sense now; 'always' is for what changes nothing, so that everybody
	 * may do it. */
	button(name, text, subject, action, allowed, kind) {
		const forbidden = this.failure || allowed === false || (!this.mayChange && allowed != 'always');

		const id = 'wgup-' + name;

		return E('button', {
			class: 'btn cbi-button' + (kind ? ' cbi-button-' + kind : ''), type: 'button', id, 'aria-labelledby': subject ? id + ' ' + subject : null,
			disabled: forbidden ? '' : null, click: action
		}, [ text ]);
	},

	/* A button for what is shown under the id wgup-name-KEY. */
	buttonFor(key, name, text, action, allowed, kind) {
		return this.button(name + '-' + key, text, 'wgup-name-' + key, action, allowed, kind);
	},

	/* Call a part that is loaded when it is first wanted. */
	later(part, action, what) {
		return L.require('wireguard-uplink.' + part).then((found) => found[action](this, what));
	},

	/* A button for the rest of a long list. */
	more(name, shown, all, step) {
		return shown < all ? this.button('more-' + name, _('Show more (%d)').format(all - shown), null, () => {
			this.shown[name] = shown + 2 * step;
			this.draw();
		}, 'always') : '';
	},

	find(text) {
		this.search = text;
		this.draw();
	},

	setSpan(span) {
		Object.assign(this, { span, seriesAt: 0 });
		return this.look().then(() => this.draw());
	},

	/* What a call comes to, once the page shows it: the sentences of `told`, else none. */
	done(work, told) {
		const look = () => this.look().then(() => this.draw());

		return work.then((reply) => look().then(() => told && told(reply)), (error) => look().then(() => { throw error; }));
	},

	/* Work without a dialog: a failure is shown on top. */
	report(work) {
		return this.done(work).catch((error) => redraw.into(this.places.error, [ words.bad(error.message) ]));
	},

	uses(device) {
		return Object.values(this.status.families).some((family) => family.active_path == device);
	},

	/* Ask for everything; for the series only where another one is wanted. */
	look() {
		const isWanted = !this.seriesAt, now = Date.now();
		const names = [ 'status', 'list', 'consumers', 'trust', 'pulse' ];
		const asked = names.map((name) => bus.ask(name));

		asked.push(bus.ask('history', { limit: HISTORY }));
		if (isWanted)
			asked.push(bus.ask('series', { span: this.span }));
		return Promise.all(asked).then((replies) => {
			names.concat([ 'history', 'series' ]).forEach((name, i) => { this[name] = replies[i] || this[name]; });
			this.seriesAt = isWanted ? now : this.seriesAt;
			this.failure = null;
			this.take();
		}, (error) => { this.failure = error; });
	},

	/* Take the numbers of the pulse into what is shown. */
	take() {
		const status = this.status;

		Object.assign(status, { since_s: this.pulse.since_s, release_s: this.pulse.release_s });
		if (status.by_hand)
			status.by_hand.left_s = this.pulse.left_s;
		for (const each of this.pulse.paths) {
			const path = status.wans.find((one) => one.device == each.path) || status.uplinks.find((one) => one.interface == each.path);

			this.rates[each.path] = each.rx_kbps + each.tx_kbps;
			if (path)
				Object.assign(path, { latency_ms: each.latency_ms, loss_pct: each.loss_pct });
		}
	},

	follow() {
		if (!this.status)
			return this.look().then(() => this.draw());

		const now = Date.now(), asked = [ bus.ask('pulse') ];
		let isQuiet = false;

		if (now - this.seriesAt > SERIES_S * 1000)
			asked.push(bus.ask('series', { span: this.span }));
		return Promise.all(asked).then(([ pulse, series ]) => {
			if (series)
				Object.assign(this, { series, seriesAt: now });

			isQuiet = pulse.stamp == this.pulse.stamp && !this.failure;
			this.pulse = pulse;
			if (!isQuiet)
				return this.look();
			this.take();
		}, (error) => { this.failure = error; }).then(() => this.draw(isQuiet));
	},

	/* Show what is known; `isQuiet`: nothing but numbers of paths differs. */
	draw(isQuiet) {
		const into = (name, nodes) => redraw.into(this.places[name], nodes);

		this.root.classList.toggle('wgup-stale', !!this.failure);
		into('error', this.failure ? [ E('div', { class: 'wgup-now wgup-bad' }, [ E('strong', { id: 'wgup-gone' }, [ this.failure.message ]) ].concat(
			this.failure.kind == 'session' ? [ E('a', { href: L.url() }, [ _('Log in') ]) ] : this.status ? [ _('What is shown below is old.') ] : [])) ] : []);
		if (!this.status || !this.list)
			return;
		into('now', this.failure ? [ this.picture() ] : this.drawNow());
		into('wans', [ cards.wans(this) ]);
		into('backups', [ this.status.uplinks.length ? cards.spans(this) : '', cards.backups(this) ]);
		if (isQuiet)
			return;
		into('guide', this.guide());
		into('peers', peers.section(this));
		into('serving', serving.section(this));
		into('history', history.section(this));
		into('more', [ this.drawMore() ]);
	},

	picture() {
		const room = this.root.clientWidth || document.getElementById('view').clientWidth;
		return draw.picture(cards.ways(this), Math.max(260, Math.min(680, room - 8)));
	},

	drawNow() {
		const status = this.status, chosen = status.by_hand, summary = status.summary;
		const isOpen = this.pulse.rollback_s > 0;
		const four = status.families.ipv4.active_path, six = status.families.ipv6.active_path;
		const buttons = {
			settings: () => E('a', { class: 'btn cbi-button', href: words.url('settings') }, [ _('Settings') ]),
			check: () => this.button('advice-check', _('Check this router'), null, () => this.later('reasons', 'check'), true, 'action'),
			failover: () => this.button('advice-failover', _('Turn it on'), null, () => this.turnFailover(), true, 'positive'),
			add: () => this.button('advice-add', _('Add as backup…'), null, () => this.later('pairing', 'add', peers.find(this, this.status.summary.peer_id)), true, 'positive')
		};

		return [
			isOpen ? words.rollback() : '',
			E('div', { class: 'wgup-now wgup-' + words.kindOf(status) }, [
				E('strong', { id: 'wgup-now', role: 'status' }, [ words.said(summary, 'now', status) ]),
				E('div', { id: 'wgup-next' }, [ words.said(summary, 'next', status) ]),
				words.note([
					_('It has been so for %s.').format(words.span(status.since_s)), words.said(status, 'cause', status),
					status.release_s >= 0 ? _('Back in %s.').format(words.span(status.release_s)) : '',
					four && six && four != six ? _('IPv4 uses %s, IPv6 uses %s.').format(words.path(status, four), words.path(status, six)) : ''
				].filter(Boolean).join(' ')),
				chosen ? E('p', { id: 'wgup-chosen' }, [
					_('You chose %s, for another %s.').format(chosen.path == 'wan' ? words.path(status, status.active_path) : chosen.path, words.span(chosen.left_s)), ' ',
					this.button('release', _('Back to automatic'), null, () => cards.release(this), true, 'positive')
				]) : ''
			]),
			this.picture(),
			E('p', { id: 'wgup-advice' }, [ E('strong', [ _('What to do:') ]), ' ' ].concat(isOpen ? [ _('Confirm the settings in LuCI, or wait until they are put back.') ]
				: [ words.said(summary, 'advice', status), ' ', (buttons[summary.action] || String)() ])),
			E('div', { id: 'wgup-problems' }, status.problems.slice(0, 5).map((each, i) => E('div', { class: 'wgup-problem' }, words.problem(status, i))))
		];
	},

	/* The first run, until a backup is ready. */
	guide() {
		const status = this.status, first = status.uplinks[0];
		const steps = [
			[ status.enabled && status.auto_failover, _('The service watches your WAN and may move traffic.') ],
			[ this.trust.peers.length > 0, _('Another router of the mesh is found.') ],
			[ status.uplinks.length > 0, _('Add a peer that you trust as backup.') ],
			[ status.uplinks.some((each) => each.usable), _('Test the backup.') ]
		];

		if (steps[3][0] || this.failure || status.state == 'stranded')
			return [];
		return [ E('h3', [ _('Four steps to a backup') ]), E('ol', { id: 'wgup-guide' }, steps.map(([ isDone, text ]) =>
			E('li', { class: isDone ? 'wgup-done' : null }, [ isDone ? _('Done: %s').format(text) : text ]))),
			first ? this.button('guide-test', _('Test'), 'wgup-name-' + first.interface, () => cards.test(this, this.status.uplinks[0].peer_id), true, 'action') : '' ];
	},

	drawMore() {
		const ask = (id, text, part, action, allowed) => [ this.button(id, text, null, () => this.later(part, action), allowed), ' ' ];
		const on = this.status.auto_failover;

		return E('details', { id: 'wgup-more' }, [ E('summary', [ _('More') ]), E('p', [].concat(
			ask('why', _('Why this way?'), 'reasons', 'why', 'always'),
			ask('what-if', _('What if…'), 'reasons', 'whatIf', 'always'),
			ask('rehearse', _('Rehearse…'), 'reasons', 'rehearse', this.status.uplinks.length > 0),
			ask('by-hand', _('Add a backup by hand…'), 'pairing', 'byHand'),
			ask('check', _('Check this router'), 'reasons', 'check'),
			ask('notify', _('Test the notices'), 'reasons', 'notify'),
			this.button('failover', on ? _('Turn automatic failover off…') : _('Turn automatic failover on'), null, () => this.turnFailover(), true, on ? 'negative' : 'positive')
		)) ]);
	},

	turnFailover() {
		const on = !this.status.auto_failover;
		const turn = () => this.done(bus.act('set_failover', { enabled: on }));

		if (on)
			return this.report(turn());
		dialog.ask({
			title: _('Turn automatic failover off?'), sentences: [ _('Traffic then stays on a dead WAN until you act.') ],
			label: _('Turn off'), kind: 'negative', work: turn
		});
	}
});
