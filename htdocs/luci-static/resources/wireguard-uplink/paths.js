'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.plot as plot';
'require wireguard-uplink.words as words';

/*
 * Which way traffic takes, and how every way is doing: the router's own lines and the uplinks, with
 * what an owner does to an uplink. `page` is the overview: its last status, what may be changed.
 */

const LEAST_MS = 20;

function problem(sentence) {
	return E('div', { 'class': 'wgup-problem' }, [ sentence ]);
}

/* What was measured last says nothing of a path that is down. */
function latencyOf(path) {
	return path.state == 'down' ? -1 : path.latency_ms;
}

function families(status) {
	const four = status.families.ipv4, six = status.families.ipv6;

	if (four.active_path == six.active_path || !four.active_path || !six.active_path)
		return '';
	return _('IPv4 uses %s, IPv6 uses %s.').format(words.path(status, four.active_path), words.path(status, six.active_path));
}

/* The uplinks by weight, which their arrows change: what they cost may decide before it. */
function byWeight(status) {
	return status.uplinks.slice().sort((one, other) => other.weight - one.weight);
}

/* The new weights that put an uplink before the one above it (or behind the one below): every
 * uplink's weight stays as it is where the order allows that. */
function reordered(uplinks, peer, step) {
	const order = uplinks.slice();
	const from = order.findIndex((each) => each.peer_id == peer);
	const to = from + step;

	if (from < 0 || to < 0 || to >= order.length)
		return [];
	order.splice(to, 0, order.splice(from, 1)[0]);

	const weights = order.map((each) => each.weight);

	for (let i = order.length - 2; i >= 0; i--)
		weights[i] = Math.max(weights[i], weights[i + 1] + 1);
	for (let i = 0, most = 100; i < order.length; i++, most = weights[i - 1] - 1)
		weights[i] = Math.max(1, Math.min(weights[i], most));

	return order.map((each, i) => ({ peer_id: each.peer_id, weight: weights[i], before: each.weight }))
		.filter((each) => each.weight != each.before);
}

return baseclass.extend({
	reordered: reordered,

	/* What an owner wants to know first. */
	now: function(page) {
		const status = page.status;

		return [
			E('div', { 'class': 'wgup-now wgup-' + words.kindOf(words.stateOf(status)) }, [
				E('strong', { 'id': 'wgup-now', 'role': 'status' }, [ words.now(status) ]),
				E('span', {}, [ _('For %s.').format(words.span(status.since_s)), ' ', status.cause, ' ', families(status) ]),
				E('div', { 'class': 'wgup-note' }, [
					status.auto_failover
						? _('A dead line is noticed and left after %.1f s at the latest.').format(status.detection_bound_ms / 1000)
						: _('Nothing is moved by itself.')
				])
			]),
			E('div', { 'id': 'wgup-problems' }, [
				status.enabled ? '' : problem(_('The service is disabled: enable it in the settings.'))
			].concat(status.problems.map(problem)))
		];
	},

	turnFailover: function(page) {
		const on = !page.status.auto_failover;
		const turn = () => page.act(on ? _('Turning automatic failover on…') : _('Turning automatic failover off…'),
			bus.ask('uplink_set_failover', { enabled: on }, true), () => []);

		if (on)
			return turn();
		dialog.confirm(_('Turn automatic failover off?'), [
			_('Traffic then stays on a dead line until you act.')
		], _('Turn off'), turn);
	},

	/* Remember what is drawn. */
	remember: function(track, status) {
		for (const each of status.wans.map((line) => [ line.device, line ]).concat(status.uplinks.map((uplink) => [ uplink.interface, uplink ]))) {
			track.add(each[0] + '/latency', latencyOf(each[1]));
			track.add(each[0] + '/loss', each[1].state == 'unknown' ? -1 : each[1].loss_pct);
		}
	},

	table: function(page) {
		const status = page.status;
		const titles = [ _('Path'), _('State'), _('Latency'), _('Lost probes'), _('Traffic'), '' ];

		return E('table', { 'class': 'table wgup', 'id': 'wgup-paths' }, [
			E('tr', { 'class': 'tr table-titles' }, titles.map((title) => E('th', { 'class': 'th' }, [ title ])))
		].concat(
			status.wans.map((line) => this.row(page, line.device, line.path, line, [
				_('own line'), line.portal ? _('Log in at %s').format(line.portal) : ''
			], '-', [])),
			byWeight(status).map((uplink, i) => this.row(page, uplink.interface, uplink.peer_id, uplink, [
				_('uplink, weight %d').format(uplink.weight),
				uplink.quota_left_gb >= 0 ? _('%.1f GB left').format(uplink.quota_left_gb) : '',
				uplink.usable ? '' : uplink.reason, uplink.note
			], _('%s in, %s out').format(words.bytes(uplink.rx_bytes), words.bytes(uplink.tx_bytes)), this.actions(page, uplink, i)))
		));
	},

	row: function(page, key, name, path, about, traffic, actions) {
		const latency = page.track.of(key + '/latency'), loss = page.track.of(key + '/loss');
		const active = path.active || page.status.active_path == key;

		return E('tr', { 'class': 'tr', 'id': 'wgup-path-' + key }, [
			E('td', { 'class': 'td', 'data-title': _('Path') }, [
				E('strong', {}, [ name ])
			].concat(about.filter(Boolean).map((each) => E('div', { 'class': 'wgup-note' }, [ each ])))),
			E('td', { 'class': 'td', 'data-title': _('State') }, [
				words.state(path.state), active ? E('div', {}, [ E('strong', {}, [ _('in use') ]) ]) : ''
			]),
			E('td', { 'class': 'td', 'data-title': _('Latency') }, [
				words.ms(latencyOf(path)), plot.draw(latency, LEAST_MS, _('Latency over the last minutes, at most %s').format(words.ms(Math.max(-1, ...latency))))
			]),
			E('td', { 'class': 'td', 'data-title': _('Lost probes') }, [
				words.percent(path.loss_pct), plot.draw(loss, 100, _('Lost probes over the last minutes, at most %s').format(words.percent(Math.max(0, ...loss))))
			]),
			E('td', { 'class': 'td', 'data-title': _('Traffic') }, [ traffic ]),
			E('td', { 'class': 'td' }, actions)
		]);
	},

	actions: function(page, uplink, place) {
		const peer = uplink.peer_id;
		const last = page.status.uplinks.length - 1;
		const make = (name, text, label, action, allowed) => page.button('wgup-%s-%s'.format(name, uplink.interface), text, label, action, allowed);

		return [
			make('up', '▲', _('Prefer %s more').format(peer), () => this.move(page, peer, -1), place > 0),
			make('down', '▼', _('Prefer %s less').format(peer), () => this.move(page, peer, 1), place < last),
			make('test', _('Test'), _('Test the uplink to %s').format(peer), () => this.test(page, peer)),
			make('remove', _('Remove…'), _('Remove the uplink to %s').format(peer), () => this.remove(page, peer))
		];
	},

	move: function(page, peer, step) {
		const changes = reordered(byWeight(page.status), peer, step);
		const work = changes.reduce((before, each) => before.then(() =>
			bus.ask('uplink_set_priority', { peer_id: each.peer_id, weight: each.weight }, true)), Promise.resolve());

		page.act(_('Changing the order…'), work, () => []);
	},

	test: function(page, peer) {
		page.act(_('Sending probes through the tunnel to %s…').format(peer), bus.ask('uplink_test', { peer_id: peer }, true), (found) => [
			found.reachable
				? _('The internet answers through %s: %s, %s of the probes lost.').format(peer, words.ms(found.latency_ms), words.percent(found.loss_pct))
				: _('Nothing answers through %s: %s').format(peer, found.error),
			found.exit_address ? _('The internet sees the address %s.').format(found.exit_address) : ''
		]);
	},

	remove: function(page, peer) {
		const uplink = page.status.uplinks.find((each) => each.peer_id == peer) || {};

		dialog.confirm(_('Remove the uplink to %s?').format(peer), [
			uplink.active ? _('Traffic uses it now: it moves to the next path, or stops where there is none.') : '',
			_('Its tunnel, its key and its rules are removed. It can be made again from the offer.')
		], _('Remove'), () => page.act(_('Removing the uplink to %s…').format(peer),
			bus.ask('uplink_remove', { peer_id: peer }, true), (reply) => [ reply.message ]));
	}
});
