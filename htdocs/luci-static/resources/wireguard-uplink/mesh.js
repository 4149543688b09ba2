'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.words as words';

/*
 * The other routers of the mesh: what they offer, and which of them are trusted. `page` is the
 * overview with the last replies of uplink_list and uplink_trust.
 */

function placeholder(text) {
	return E('tr', { 'class': 'tr placeholder' }, [ E('td', { 'class': 'td' }, [ E('em', {}, [ text ]) ]) ]);
}

function table(id, titles, rows, empty) {
	return E('table', { 'class': 'table wgup', 'id': id }, [
		E('tr', { 'class': 'tr table-titles' }, titles.map((title) => E('th', { 'class': 'th' }, [ title ])))
	].concat(rows.length ? rows : [ placeholder(empty) ]));
}

function cells(titles, contents) {
	return contents.map((each, i) => E('td', titles[i] ? { 'class': 'td', 'data-title': titles[i] } : { 'class': 'td' },
		Array.isArray(each) ? each : [ each ]));
}

return baseclass.extend({
	offers: function(page) {
		const titles = [ _('Peer'), _('Trust'), _('Cost'), _('Speed'), _('Line'), '' ];

		return table('wgup-offers', titles, page.list.offers.map((offer) => E('tr', { 'class': 'tr', 'id': 'wgup-offer-' + offer.peer_id }, cells(titles, [
			[ E('strong', {}, [ offer.peer_id ]), E('div', { 'class': 'wgup-note' }, [ _('heard %s ago').format(words.span(offer.age_s)) ]) ],
			[ words.state(offer.trusted ? 'trusted' : 'untrusted'), E('div', { 'class': 'wgup-note' }, [ offer.reason ]) ],
			words.cost(offer),
			[ offer.bandwidth_mbps ? _('%d Mbit/s').format(offer.bandwidth_mbps) : '', words.ms(offer.latency_ms) ].filter(Boolean).join(', '),
			offer.wan_type || '-',
			[ offer.configured ? _('in use as uplink') : page.button('wgup-add-' + offer.peer_id, _('Add…'), _('Add an uplink to %s').format(offer.peer_id), () => this.add(page, offer.peer_id), offer.usable) ]
		]))), _('No peer offers its internet now.'));
	},

	add: function(page, peer) {
		dialog.form(_('Add an uplink to %s?').format(peer), [
			_('A tunnel is made and tried. It carries traffic only when the own line is dead.')
		], [ {
			name: 'weight', label: _('Weight'), type: 'number', value: 10, more: { min: 1, max: 100, required: '' },
			help: _('From 1 to 100; the uplink with the highest one is used first.')
		} ], _('Add'), (given) => this.make(page, Object.assign({ peer_id: peer }, given)));
	},

	addByHand: function(page) {
		dialog.form(_('Add an uplink by hand'), [
			_('For a peer whose offer is not heard. Its owner has to admit the public key that is shown afterwards.')
		], [
			{ name: 'peer_id', label: _('Peer'), more: { required: '', maxlength: 64 } },
			{ name: 'endpoint', label: _('Address and port'), more: { required: '', placeholder: 'peer.example.com:51820' } },
			{ name: 'public_key', label: _('Public key'), more: { required: '', maxlength: 44 } },
			{ name: 'address', label: _('Own tunnel address'), help: _('Left out, one is derived from the key.') },
			{ name: 'weight', label: _('Weight'), type: 'number', value: 10, more: { min: 1, max: 100 } }
		], _('Add'), (given) => this.make(page, given));
	},

	make: function(page, given) {
		page.act(_('Making the tunnel to %s and waiting for its handshake…').format(given.peer_id), bus.ask('uplink_add', given, true), (reply) => [
			reply.message, reply.note,
			given.public_key ? _('The public key of this router for it: %s').format(reply.public_key) : ''
		]);
	},

	trust: function(page) {
		const titles = [ _('Peer'), _('Trust'), _('Mesh key'), _('Last seen'), '' ];

		return table('wgup-trust', titles, page.trust.peers.map((peer) => E('tr', { 'class': 'tr', 'id': 'wgup-trust-' + this.nameOf(peer) }, cells(titles, [
			[ E('strong', {}, [ peer.peer_id || '-' ]), E('div', { 'class': 'wgup-note' }, [ peer.mesh_address ]) ],
			[ words.state(peer.state), E('div', { 'class': 'wgup-note' }, [ peer.reason ]) ],
			E('span', { 'class': 'wgup-key' }, [ peer.mesh_key || '-' ]),
			peer.handshake_age_s < 0 ? '-' : _('%s ago').format(words.span(peer.handshake_age_s)),
			[ peer.state == 'trusted'
				? page.button('wgup-revoke-' + this.nameOf(peer), _('Revoke…'), _('Trust %s no longer').format(peer.peer_id), () => this.revoke(page, peer.peer_id))
				: page.button('wgup-accept-' + this.nameOf(peer), _('Accept…'), _('Trust %s').format(peer.peer_id), () => this.accept(page, this.nameOf(peer)), !!peer.mesh_key && !!peer.peer_id) ]
		]))), _('No peer was seen on the mesh yet.'));
	},

	/* Several peers may claim one id: then the fingerprints tell them apart. Some have none yet. */
	nameOf: (peer) => peer.fingerprint ? peer.peer_id + '-' + peer.fingerprint : peer.peer_id || peer.mesh_key,

	accept: function(page, name) {
		const peer = page.trust.peers.find((each) => this.nameOf(each) == name);

		if (!peer)
			return;
		dialog.confirm(_('Trust %s?').format(peer.peer_id), [
			peer.state == 'changed' ? _('Its key is not the one that was confirmed before. Ask its owner why, before you go on.') : '',
			_('Compare this with its owner: mesh key %s').format(peer.mesh_key),
			peer.identity ? _('identity %s').format(peer.identity) : '',
			peer.fingerprint ? _('fingerprint %s').format(peer.fingerprint) : '',
			_('Your traffic may then leave by its internet, and it may ask for yours where you offer it.')
		].filter(Boolean), _('Trust'), () => page.act(_('Confirming %s…').format(peer.peer_id), bus.ask('uplink_trust_accept', {
			peer_id: peer.peer_id, fingerprint: peer.fingerprint || undefined
		}, true), (reply) => [ reply.message ]));
	},

	revoke: function(page, peer) {
		dialog.confirm(_('Trust %s no longer?').format(peer), [
			_('Its offers are ignored, uplinks to it that were made by themselves go, and what it was lent of this line ends at once.')
		], _('Revoke'), () => page.act(_('Revoking the trust in %s…').format(peer),
			bus.ask('uplink_trust_revoke', { peer_id: peer }, true), (reply) => [ reply.message ]));
	}
});
