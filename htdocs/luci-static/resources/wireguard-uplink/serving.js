'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.words as words';

/*
 * This router's own internet for peers: the offer, its limits, and who uses it. `page` is the overview
 * with the last reply of uplink_consumers.
 */

function limits(offer) {
	return words.dotted(
		offer.bandwidth_mbps ? words.rate(offer.bandwidth_mbps * 1000) : '', offer.metered ? words.cost('metered') : '',
		offer.quota_left_gb >= 0 ? _('%s of %s GB left').format(words.number(offer.quota_left_gb, 1), words.number(offer.quota_gb, 1)) : '',
		offer.limit_mbps ? _('at most %s for each peer').format(words.rate(offer.limit_mbps * 1000)) : _('no limit for each peer')
	);
}

return baseclass.extend({
	section(page) {
		const found = page.consumers, offer = found.offer || {};

		return [
			E('p', { id: 'wgup-offering' }, [
				found.offering
					? offer.available
						? words.mark('good', _('Your internet is offered to trusted peers'))
						: words.mark('warn', _('Your internet can not be offered now: %s').format(words.said(offer, 'reason')))
					: words.mark('idle', _('Your internet is not offered')),
				found.offering ? words.note(limits(offer)) : ''
			]),
			found.consumers.length ? this.table(found, offer) : '',
			E('p', { class: 'wgup-actions', id: 'wgup-offering-actions' }, [
				page.button('offer', found.offering ? _('Change the offer…') : _('Offer your internet…'), null, () => this.offer(page)), ' ',
				found.offering ? page.button('withdraw', _('Withdraw…'), null, () => this.withdraw(page), true, 'negative') : ''
			])
		];
	},

	table(found, offer) {
		const made = words.table('wgup-consumers', [ _('Peer'), _('Last seen'), _('Today'), _('This month') ], found.consumers.map((each) => [
			'wgup-consumer-' + each.public_key, each.peer_id, each.handshake_age_s < 0 ? _('never') : _('%s ago').format(words.span(each.handshake_age_s)),
			words.bytes(each.today_bytes), words.bytes(each.month_bytes)
		]));

		made.prepend(E('caption', [ _('Peers served: %d of %d').format(found.consumers.length, offer.max_consumers || found.consumers.length) ]));
		return made;
	},

	offer(page) {
		const now = page.consumers.offer || {};
		const number = (name, label, empty, help, more) => ({
			name, label, help, type: 'number', empty, value: now[name] > 0 ? now[name] : '', more: Object.assign({ min: 0 }, more)
		});

		dialog.ask({
			title: _('Offer your internet to trusted peers'),
			sentences: [ _('They reach the internet through it and nothing of your own networks.') ],
			fields: [
				number('limit_mbps', _('Limit for each peer, Mbit/s'), 0, _('Empty is no limit.'), { max: 100000 }),
				number('quota_gb', _('GB a month for all of them'), 0, _('Empty is no limit.'), { step: 'any', max: 1000000 }),
				number('max_consumers', _('Peers at the same time'), 8, null, { min: 1, max: 200 }),
				number('bandwidth_mbps', _('Speed to advertise, Mbit/s'), 0, null, { max: 1000000 }),
				{ name: 'wan_type', label: _('Kind of internet'), value: now.wan_type || '', empty: '', more: { placeholder: 'fiber', maxlength: 32 } },
				{ name: 'metered', label: _('It is paid by volume'), type: 'checkbox', value: now.metered }
			],
			label: _('Offer'),
			work: (given) => page.done(bus.act('offer', given), (reply) => [ words.said(reply, 'note') ])
		});
	},

	withdraw(page) {
		const using = page.consumers.consumers.map((each) => each.peer_id).join(', ');

		dialog.ask({
			title: _('Withdraw the offer?'),
			sentences: [ using ? _('%s lose this way to the internet at once.').format(using) : _('Nobody uses it now.') ],
			label: _('Withdraw'), kind: 'negative',
			work: () => page.done(bus.act('withdraw', {}))
		});
	}
});
