'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.draw as draw';
'require wireguard-uplink.redraw as redraw';
'require wireguard-uplink.words as words';

/*
 * Each way to the internet as a card: the router's own WANs, then the backups in the order of use.
 * `page` is the overview: its last replies, what may be changed.
 */

const SPANS = { hour: _('Last hour'), day: _('Last day'), month: _('Last month') };
const TIMES = [ [ '10m', _('10 minutes') ], [ '1h', _('1 hour') ], [ '8h', _('8 hours') ] ];

/* Whether a weight decides between two: what comes before it is the same. */
function comparable(one, other) {
	return !!one && !!other && one.usable == other.usable && one.shared_fate == other.shared_fate && one.cost == other.cost;
}

/* The new weights that put an uplink before the one above it (or behind the one below): every
 * uplink's weight stays as it is where the order allows that. */
function reordered(uplinks, peer, step) {
	const from = uplinks.findIndex((each) => each.peer_id == peer), to = from + step;

	if (!comparable(uplinks[from], uplinks[to]))
		return [];

	const order = uplinks.filter((each) => comparable(each, uplinks[from]));
	const place = order.findIndex((each) => each.peer_id == peer);

	order.splice(place + step, 0, order.splice(place, 1)[0]);

	const weights = order.map((each) => each.weight);

	for (let i = order.length - 2; i >= 0; i--)
		weights[i] = Math.max(weights[i], weights[i + 1] + 1);
	for (let i = 0, most = 100; i < order.length; i++, most = weights[i - 1] - 1)
		weights[i] = Math.max(1, Math.min(weights[i], most));

	return order.map((each, i) => ({ peer_id: each.peer_id, weight: weights[i], before: each.weight })).filter((each) => each.weight != each.before);
}

return baseclass.extend({
	reordered,

	/* The ways as the picture has them. */
	ways(page) {
		const status = page.status;
		const note = (path, device, ready) => path.state == 'down' ? _('down')
			: words.dotted(words.ms(path.latency_ms), page.rates[device] > 20 ? words.rate(page.rates[device]) : ready);
		const way = (name, path, device, active, ready) => ({
			name, kbps: page.rates[device] || 0, note: note(path, device, ready),
			kind: path.state == 'down' ? 'dead' : active ? 'used' : ready == _('ready') ? 'ready' : 'idle'
		});

		return status.wans.map((wan) => way(wan.path, wan, wan.device, page.uses(wan.device), wan.state == 'up' ? _('ready') : ''))
			.concat(status.uplinks.map((each) => way(each.peer_id, each, each.interface, each.active, each.usable ? _('ready') : _('not ready'))));
	},

	wans(page) {
		return E('ul', { class: 'wgup-cards', id: 'wgup-wans' }, page.status.wans.map((wan) => {
			const used = page.uses(wan.device);

			return this.card(page, wan.device, wan.path, wan, [], () => [
				used ? words.inUse() : words.state(wan.state), [ wan.portal ? _('Log in at %s').format(wan.portal) : '' ], [
					page.buttonFor(wan.device, 'use', _('Use now…'), () => this.use(page, 'wan', wan.path), wan.state == 'up' && !used)
				], ''
			]);
		}));
	},

	backups(page) {
		const all = page.status.uplinks;

		if (!all.length)
			return E('p', { id: 'wgup-none' }, [ _('There is no backup yet.') ]);
		return E('ol', { class: 'wgup-cards', id: 'wgup-backups' }, all.map((each, i) => {
			const peer = each.peer_id, name = each.interface;
			const make = page.buttonFor.bind(page, name);
			const arrow = (id, text, step) => comparable(each, all[i + step]) ? [ ' ', make(id, text, () => this.move(page, peer, step)) ] : [];

			return this.card(page, name, '%d. %s'.format(i + 1, peer), each, [
				words.cost(each.cost), _('%s today').format(words.bytes(each.today_bytes)), _('%s this month').format(words.bytes(each.month_bytes)),
				words.left(each.quota_left_gb)
			], () => [
				each.active ? words.inUse() : each.usable ? words.mark('good', _('ready')) : words.mark('warn', _('not ready')),
				[ each.usable ? '' : words.said(each, 'reason'), words.said(each, 'note') ], [
					make('use', _('Use now…'), () => this.use(page, peer, peer), each.usable && !each.active, 'action'), ' ',
					make('test', _('Test'), () => this.test(page, peer)), ' ',
					make('remove', _('Remove…'), () => this.remove(page, peer), true, 'negative')
				],
				E('details', [
					E('summary', [ _('Advanced') ]),
					E('p', [ words.dotted(_('Weight %s').format(each.weight), each.endpoint, each.underlay, _('MTU %d').format(each.mtu)) ].concat(
						arrow('up', _('Earlier'), -1), arrow('down', _('Later'), 1)))
				])
			]);
		}));
	},

	/* A card. `facts` are its numbers. Where the service has no other news only they are written, and
	 * `make` is not called for mark, reasons, buttons and what is folded. */
	card(page, key, name, path, facts, make) {
		const numbers = words.dotted(path.state == 'down' ? '' : words.ms(path.latency_ms), _('%s lost').format(words.percent(path.loss_pct)), ...facts);
		const id = 'wgup-path-' + key, place = document.getElementById('wgup-numbers-' + key);
		const sign = [ page.pulse.stamp, page.seriesAt, !!page.failure ].join();

		if (place && page.signs[key] == sign) {
			place.textContent = numbers;
			return redraw.same('li', id);
		}
		page.signs[key] = sign;

		const [ mark, reasons, buttons, more ] = make();
		const series = L.toArray(page.series && page.series.paths).find((each) => each.path == key) || { latency_ms: [] };
		const known = series.latency_ms.filter((each) => each >= 0);

		return E('li', { class: 'wgup-card', id }, [
			E('div', [
				E('h4', [ E('span', { id: 'wgup-name-' + key }, [ name ]), ' ', mark ])
			].concat(reasons.filter(Boolean).map((each) => words.note(each)), [
				E('div', { class: 'wgup-note', id: 'wgup-numbers-' + key }, [ numbers ])
			])),
			known.length ? draw.line(series.latency_ms, 20, '%s: %s'.format(SPANS[page.span], _('latency up to %s, %d gaps').format(
				words.ms(Math.max(...known)), series.latency_ms.length - known.length))) : '',
			E('div', { class: 'wgup-actions' }, buttons), more
		]);
	},

	/* Which time the small lines are of. */
	spans(page) {
		return E('label', [ _('Latency:'), ' ', E('select', {
			id: 'wgup-span', class: 'cbi-input-select', change: (event) => page.setSpan(event.target.value)
		}, Object.keys(SPANS).map((each) => E('option', { value: each }, [ SPANS[each] ]))) ]);
	},

	use(page, path, name) {
		dialog.ask({
			title: _('Use %s now?').format(name),
			sentences: [ _('All traffic leaves by it until the time is over, or until it fails. Connections that are open may break.') ],
			fields: [ { name: 'for', label: _('For'), options: TIMES } ],
			label: _('Use now'),
			work: (given) => page.done(bus.act('use', { path, for: given['for'] }))
		});
	},

	release(page) {
		return page.done(bus.act('use', { path: 'auto' }));
	},

	move(page, peer, step) {
		return page.report(reordered(page.status.uplinks, peer, step).reduce((before, each) => before.then(() =>
			bus.act('set_priority', { peer_id: each.peer_id, weight: each.weight })), Promise.resolve()));
	},

	/* What a test has found, as sentences. */
	found: (tested) => [
		tested.reachable ? _('The internet answers through %s: %s, %s lost.').format(tested.peer_id, words.ms(tested.latency_ms), words.percent(tested.loss_pct))
			: _('Nothing answers through %s: %s').format(tested.peer_id, words.said(tested, 'error'))
	],

	test(page, peer) {
		dialog.show(_('Test %s').format(peer), page.done(bus.act('test', { peer_id: peer }), this.found));
	},

	remove(page, peer) {
		const uplink = page.status.uplinks.find((each) => each.peer_id == peer) || {};

		dialog.ask({
			title: _('Remove %s?').format(peer),
			sentences: [
				uplink.active ? _('Traffic uses it now: it moves to the next way, or stops where there is none.') : '',
				_('Its tunnel and its key are removed. It can be added again from its offer.')
			],
			label: _('Remove'), kind: 'negative',
			work: () => page.done(bus.act('remove', { peer_id: peer }))
		});
	}
});
