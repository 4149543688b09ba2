'use strict';
'require baseclass';
'require wireguard-uplink.words as words';

/*
 * The other routers of the mesh: what they offer, and whether they are trusted. `page` is the overview
 * with the last replies of uplink_list and uplink_trust.
 */

const SHOWN = 10;

/* What is known of each peer: its offer, and what trust there is. Usable ones first. */
function known(page) {
	const all = new Map();
	const take = (id, more) => all.set(id, Object.assign(all.get(id) || { id }, more));
	const rank = (each) => each.offer ? (each.offer.configured ? 1 : each.offer.usable ? 0 : each.offer.trusted ? 2 : 3) : each.trust.state == 'trusted' ? 2 : 4;

	for (const trust of page.trust.peers)
		take(trust.peer_id || trust.mesh_key, { trust });
	for (const offer of page.list.offers)
		take(offer.peer_id, { offer });
	for (const each of all.values())
		each.trust = each.trust || { state: each.offer.trusted ? 'trusted' : 'untrusted', reason: each.offer.reason };
	return [ ...all.values() ].sort((one, other) => rank(one) - rank(other) || (one.id < other.id ? -1 : 1));
}

return baseclass.extend({
	/* The peer of this id, with `offer` (where there is one) and `trust`. */
	find: (page, id) => known(page).find((each) => each.id == id),

	section(page) {
		const wanted = page.search.toLowerCase();
		const all = known(page), found = all.filter((each) => each.id.toLowerCase().includes(wanted));
		const shown = found.slice(0, page.shown.peers || SHOWN);

		return [
			all.length > SHOWN ? E('p', [ E('input', {
				type: 'search', id: 'wgup-search', class: 'cbi-input-text', placeholder: _('Search'), 'aria-label': _('Search peers'),
				input: (event) => page.find(event.target.value)
			}) ]) : '',
			shown.length ? words.table('wgup-peers', [ _('Peer'), _('Its internet'), _('Trust'), '' ], shown.map((each) => this.row(page, each))) : E('p', [ all.length ? _('No peer has such a name.') : _('No other router of the mesh was seen yet.') ]),
			page.more('peers', shown.length, found.length, SHOWN)
		];
	},

	row(page, peer) {
		const offer = peer.offer, trust = peer.trust, isTrusted = trust.state == 'trusted';
		const mayTrust = !!trust.mesh_key && !!trust.peer_id;
		const make = page.buttonFor.bind(page, peer.id);
		const buttons = [];

		if (offer && offer.configured)
			buttons.push(_('is a backup'));
		else if (offer)
			buttons.push(make('add', _('Add as backup…'), () => page.later('pairing', 'add', peer), offer.usable || !isTrusted && mayTrust, 'action'));
		if (isTrusted)
			buttons.push(make('revoke', _('Trust no longer…'), () => page.later('pairing', 'revoke', peer), true, 'negative'));
		else if (!offer)
			buttons.push(make('trust', _('Trust…'), () => page.later('pairing', 'trust', peer), mayTrust));

		return [
			'wgup-peer-' + peer.id, [ E('strong', { id: 'wgup-name-' + peer.id }, [ peer.id ]) ],
			offer ? [ words.dotted(offer.wan_type, offer.bandwidth_mbps ? words.rate(offer.bandwidth_mbps * 1000) : '', words.offerCost(offer)),
				isTrusted && !offer.usable ? words.note(words.said(offer, 'reason')) : '' ] : [ _('not offered') ],
			[ words.state(trust.state), trust.state == 'untrusted' ? '' : words.note(words.said(trust, 'reason')) ],
			buttons.reduce((all, each) => all.concat([ each, ' ' ]), [])
		];
	}
});
