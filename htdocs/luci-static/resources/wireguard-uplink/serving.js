'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.words as words';

/*
 * This router's own internet for others: the offer, its limits, and who uses it. `page` is the
 * overview with the last reply of uplink_consumers.
 */

function limits(offer) {
	return [
		offer.bandwidth_mbps ? _('advertised with %d Mbit/s').format(offer.bandwidth_mbps) : '',
		offer.limit_mbps ? _('at most %d Mbit/s each way for each peer').format(offer.limit_mbps) : _('no limit for a single peer'),
		offer.quota_left_gb >= 0 ? _('%.1f of %.1f GB left this month').format(offer.quota_left_gb, offer.quota_gb) : _('no monthly limit'),
		offer.metered ? _('told to be metered') : ''
	].filter(Boolean).join(', ') + '.';
}

return baseclass.extend({
	section: function(page) {
		const found = page.consumers;
		const offer = found.offer || {};

		return [
			E('p', { 'id': 'wgup-offering' }, [
				found.offering
					? offer.available
						? words.mark('good', _('This line is offered to trusted peers'))
						: words.mark('warn', _('The offer does not stand now: %s').format(offer.reason))
					: words.mark('idle', _('This line is not offered')),
				found.offering ? E('div', { 'class': 'wgup-note' }, [ limits(offer) ]) : ''
			]),
			E('p', { 'id': 'wgup-offering-actions' }, [
				page.button('wgup-offer', found.offering ? _('Change the offer…') : _('Offer this line…'), null, () => this.offer(page)), ' ',
				page.button('wgup-withdraw', _('Withdraw…'), _('Withdraw the offer'), () => this.withdraw(page), !!found.offering)
			]),
			found.consumers.length ? this.table(found, offer) : E('p', { 'id': 'wgup-nobody' }, [ _('Nobody uses this line.') ]),
			found.refused.length ? E('p', { 'class': 'wgup-note' }, [
				_('Refused so far: %s.').format(found.refused.map((each) => '%s %d'.format(each.code.replace(/_/g, ' '), each.count)).join(', '))
			]) : ''
		];
	},

	table: function(found, offer) {
		const titles = [ _('Peer'), _('Address'), _('Last seen'), _('Today'), _('This month') ];

		return E('table', { 'class': 'table wgup', 'id': 'wgup-consumers' }, [
			E('caption', {}, [ _('Peers served: %d of %d').format(found.consumers.length, offer.max_consumers || found.consumers.length) ]),
			E('tr', { 'class': 'tr table-titles' }, titles.map((title) => E('th', { 'class': 'th' }, [ title ])))
		].concat(found.consumers.map((each) => E('tr', { 'class': 'tr', 'id': 'wgup-consumer-' + each.public_key }, [
			each.peer_id, [ each.address, each.address6 ].filter(Boolean).join(', '),
			each.handshake_age_s < 0 ? _('never') : _('%s ago').format(words.span(each.handshake_age_s)),
			words.bytes(each.today_bytes), words.bytes(each.month_bytes)
		].map((text, i) => E('td', { 'class': 'td', 'data-title': titles[i] }, [ text ]))))));
	},

	offer: function(page) {
		const now = page.consumers.offer || {};
		const number = (name, label, help, more) => ({
			name: name, label: label, help: help, type: 'number', value: now[name] > 0 ? now[name] : '', more: Object.assign({ min: 0 }, more)
		});

		dialog.form(_('Offer this line to trusted peers'), [
			_('They reach the internet through it and nothing of your own networks.')
		], [
			number('bandwidth_mbps', _('Speed to advertise, Mbit/s')),
			number('limit_mbps', _('Limit for each peer, Mbit/s'), _('0 is no limit.')),
			number('max_consumers', _('Peers at the same time'), null, { min: 1, max: 200 }),
			number('quota_gb', _('GB a month for all of them'), _('0 is no limit.'), { step: 'any' }),
			{ name: 'wan_type', label: _('Kind of line'), value: now.wan_type || '', more: { placeholder: 'fiber', maxlength: 32 } },
			{ name: 'metered', label: _('The line is paid by volume'), type: 'checkbox', value: now.metered }
		], _('Offer'), (given) => page.act(_('Preparing the offer…'), bus.ask('uplink_offer', given, true), (reply) => [ reply.message, reply.note ]));
	},

	withdraw: function(page) {
		const using = page.consumers.consumers.map((each) => each.peer_id).join(', ');

		dialog.confirm(_('Withdraw the offer?'), [
			using ? _('%s lose this way to the internet at once.').format(using) : _('Nobody uses it now.'),
			_('Their leases are kept for the day when you offer it again.')
		], _('Withdraw'), () => page.act(_('Withdrawing the offer…'), bus.ask('uplink_withdraw', {}, true), (reply) => [ reply.message ]));
	}
});
