'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.words as words';

/*
 * The column "Uplink" for another page's table of WireGuard peers: the dashboard's, or any other.
 *
 *     'require wireguard-uplink.peers-column as uplinkColumn';
 *     load: Promise.all([ ..., uplinkColumn.load() ])
 *     header: E('th', {}, [ uplinkColumn.title ])
 *     row:    E('td', {}, [ uplinkColumn.cell(found, peer.public_key) ])
 *     poll:   uplinkColumn.load().then((found) => uplinkColumn.update(found, place, key))
 *
 * A peer is known by its key in the mesh or as the far end of an uplink. Where the service isn't
 * there, every cell says so with a dash, and nothing is rejected.
 */

return baseclass.extend({
	title: _('Uplink'),

	/* What there is to know of peers, by key. */
	load: function() {
		const asked = [ bus.ask('uplink_status'), bus.ask('uplink_list'), bus.ask('uplink_trust') ];

		return Promise.all(asked).then(function([ status, list, trust ]) {
			const found = new Map();
			const tell = (key, more) => key && found.set(key, Object.assign(found.get(key) || {}, more));

			for (const peer of trust.peers)
				tell(peer.mesh_key, {
					offer: list.offers.find((each) => each.peer_id == peer.peer_id),
					uplink: status.uplinks.find((each) => each.peer_id == peer.peer_id)
				});
			for (const uplink of list.uplinks)
				tell(uplink.public_key, { uplink: status.uplinks.find((each) => each.interface == uplink.interface) });
			return found;
		}).catch(() => new Map());
	},

	/* The content of the cell for a peer's public key. */
	cell: function(found, key) {
		const known = found.get(key) || {};

		if (known.uplink)
			return E('span', { 'title': known.uplink.reason || null }, [
				known.uplink.active ? words.mark('good', _('in use')) : words.state(known.uplink.state)
			]);
		if (known.offer)
			return words.mark('idle', known.offer.usable ? _('offered, %s').format(words.cost(known.offer)) : _('offered, not usable'));
		return E('span', {}, [ '-' ]);
	},

	/* Bring a cell that is shown up to date. */
	update: function(found, place, key) {
		place.replaceChildren(this.cell(found, key));
	}
});
