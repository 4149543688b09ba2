'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.cards as cards';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.words as words';

/*
 * The other routers of the mesh: what they offer, whether they are trusted, and the way from an offer
 * to a tested backup. `page` is the overview with the last replies of uplink_list and uplink_trust.
 */

const SHOWN = 10;

/* What is known of each peer: its offer, and what trust there is. Usable ones first. */
function known(page) {
	const all = new Map();
	const take = (id, more) => all.set(id, Object.assign(all.get(id) || { id: id }, more));
	const rank = (each) => each.offer ? (each.offer.configured ? 1 : each.offer.usable ? 0 : each.offer.trusted ? 2 : 3) : each.trust.state == 'trusted' ? 2 : 4;

	for (const trust of page.trust.peers)
		take(trust.peer_id || trust.mesh_key, { trust: trust });
	for (const offer of page.list.offers)
		take(offer.peer_id, { offer: offer });
	for (const each of all.values())
		each.trust = each.trust || { state: each.offer.trusted ? 'trusted' : 'untrusted', reason: each.offer.reason };
	return Array.from(all.values()).sort((one, other) => rank(one) - rank(other) || (one.id < other.id ? -1 : 1));
}

function keys(trust) {
	return E('details', {}, [
		E('summary', {}, [ _('Compare its key with its owner') ]),
		E('p', { 'class': 'wgup-key' }, [ [ trust.mesh_key, trust.identity, trust.fingerprint ].filter(Boolean).join(' · ') || '–' ])
	]);
}

return baseclass.extend({
	section: function(page) {
		const wanted = page.search.toLowerCase();
		const all = known(page), found = all.filter((each) => each.id.toLowerCase().includes(wanted));
		const shown = found.slice(0, page.shown.peers || SHOWN);
		const titles = [ _('Peer'), _('Its internet'), _('Trust'), '' ];

		return [
			all.length > SHOWN ? E('p', {}, [ E('input', {
				'type': 'search', 'id': 'wgup-search', 'class': 'cbi-input-text', 'placeholder': _('Search'), 'aria-label': _('Search peers'),
				'input': (event) => page.find(event.target.value)
			}) ]) : '',
			shown.length ? E('table', { 'class': 'table wgup', 'id': 'wgup-peers' }, [
				E('tr', { 'class': 'tr table-titles' }, titles.map((title) => E('th', { 'class': 'th' }, [ title ])))
			].concat(shown.map((each) => this.row(page, each, titles)))) : E('p', {}, [ all.length ? _('No peer has such a name.') : _('No other router of the mesh was seen yet.') ]),
			page.more('peers', shown.length, found.length, SHOWN)
		];
	},

	row: function(page, peer, titles) {
		const offer = peer.offer, trust = peer.trust, isTrusted = trust.state == 'trusted';
		const mayTrust = !!trust.mesh_key && !!trust.peer_id;
		const make = (id, text, label, action, allowed, kind) => page.button('wgup-%s-%s'.format(id, peer.id), text, label, action, allowed, kind);
		const buttons = [];

		if (offer && offer.configured)
			buttons.push(_('is a backup'));
		else if (offer)
			buttons.push(make('add', _('Add as backup…'), _('Add %s as backup').format(peer.id), () => this.add(page, peer.id), offer.usable || !isTrusted && mayTrust, 'cbi-button-action'));
		if (isTrusted)
			buttons.push(make('revoke', _('Trust no longer…'), _('Trust %s no longer').format(peer.id), () => this.revoke(page, peer.id), true, 'cbi-button-negative'));
		else if (!offer)
			buttons.push(make('trust', _('Trust…'), _('Trust %s').format(peer.id), () => this.trust(page, peer.id), mayTrust));

		return E('tr', { 'class': 'tr', 'id': 'wgup-peer-' + peer.id }, [
			[ E('strong', {}, [ peer.id ]) ],
			offer ? [ [ offer.wan_type, offer.bandwidth_mbps ? _('%s Mbit/s').format(words.number(offer.bandwidth_mbps)) : '', words.offerCost(offer) ].filter(Boolean).join(' · '),
				isTrusted && !offer.usable ? E('div', { 'class': 'wgup-note' }, [ words.reason(offer.reason) ]) : '' ] : [ _('not offered') ],
			[ words.state(trust.state), trust.state == 'untrusted' ? '' : E('div', { 'class': 'wgup-note' }, [ words.reason(trust.reason) ]) ],
			buttons.reduce((all, each) => all.concat([ each, ' ' ]), [])
		].map((content, i) => E('td', { 'class': i == 3 ? 'td right' : 'td', 'data-title': titles[i] || null }, content)));
	},

	find: function(page, id) {
		return known(page).find((each) => each.id == id);
	},

	/* Trust, add and test, in one window. */
	add: function(page, id) {
		const peer = this.find(page, id), trust = peer.trust, isNew = trust.state != 'trusted';

		dialog.ask({
			title: _('Add %s as backup').format(id),
			sentences: [
				isNew ? _('You say with this that you know whose router it is: your traffic may leave by its internet, and its owner could see where it goes.') : '',
				trust.state == 'changed' ? _('Its key is not the one that was confirmed before. Ask its owner why, before you go on.') : '',
				_('A tunnel is made and tested. It carries traffic only when your WAN fails.'),
				isNew ? keys(trust) : ''
			],
			label: isNew ? _('Trust, add and test') : _('Add and test'), busy: _('This takes some seconds…'),
			work: (given, tell) => page.done((isNew ? this.accept(trust) : Promise.resolve()).then(() => {
				if (isNew)
					tell(_('%s is trusted.').format(id));
				return this.until(id, 20);
			}).then(() => bus.act('uplink_add', { peer_id: id })).then((added) => {
				tell(_('The tunnel to %s is made.').format(id));
				return bus.act('uplink_test', { peer_id: id }).then((tested) => [ cards.found(tested)[0], added.note ]);
			}), (told) => told)
		});
	},

	/* An offer of a peer that was just trusted is judged anew, or comes again. */
	until: function(id, tries) {
		return bus.ask('uplink_list').then((list) => {
			const offer = list.offers.find((each) => each.peer_id == id);

			if (!tries || offer && offer.usable)
				return;
			return new Promise((done) => window.setTimeout(done, 500)).then(() => this.until(id, tries - 1));
		});
	},

	accept: (trust) => bus.act('uplink_trust_accept', { peer_id: trust.peer_id, fingerprint: trust.fingerprint || undefined }),

	trust: function(page, id) {
		const trust = this.find(page, id).trust;

		dialog.ask({
			title: _('Trust %s?').format(id),
			sentences: [
				trust.state == 'changed' ? _('Its key is not the one that was confirmed before. Ask its owner why, before you go on.') : '',
				_('Your traffic may then leave by its internet, and it may ask for yours where you offer it.'), keys(trust)
			],
			label: _('Trust'), work: () => page.done(this.accept(trust), () => [])
		});
	},

	revoke: function(page, id) {
		dialog.ask({
			title: _('Trust %s no longer?').format(id),
			sentences: [ _('Its offers are ignored, backups to it that were added by themselves go, and it can not use your internet any more.') ],
			label: _('Trust no longer'), kind: 'cbi-button-negative',
			work: () => page.done(bus.act('uplink_trust_revoke', { peer_id: id }), () => [])
		});
	},

	byHand: function(page) {
		dialog.ask({
			title: _('Add a backup by hand'),
			sentences: [ _('For a peer whose offer is not heard. Its owner has to admit the public key that is shown afterwards.') ],
			fields: [
				{ name: 'peer_id', label: _('Peer'), more: { required: '', maxlength: 64 } },
				{ name: 'endpoint', label: _('Address and port'), more: { required: '', placeholder: 'peer.example.com:51820' } },
				{ name: 'public_key', label: _('Public key'), more: { required: '', maxlength: 44 } },
				{ name: 'address', label: _('Own tunnel address'), help: _('Left out, one is derived from the key.') }
			],
			label: _('Add'), busy: _('This takes some seconds…'),
			work: (given) => page.done(bus.act('uplink_add', given), (reply) => [
				reply.message, reply.note, _('The public key of this router for it: %s').format(reply.public_key)
			])
		});
	}
});
