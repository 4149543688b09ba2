'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.words as words';

/*
 * The column "Uplink" for another page's table of WireGuard peers: the dashboard's, or any other.
 * A peer is known by its key in the mesh or as the far end of an uplink. Where the service isn't
 * there, every cell says so with a dash, and nothing is rejected.
 */

return baseclass.extend({
	title: _('Uplink'),

	/* What there is to know of peers, by key. */
	load() {
		return Promise.all([ 'status', 'list', 'trust' ].map((name) => bus.ask(name))).then(([ status, list, trust ]) => {
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
	cell(found, key) {
		const known = found.get(key) || {};

		if (known.uplink)
			return E('a', { href: words.url('overview'), title: words.said(known.uplink, 'reason') || null }, [
				known.uplink.active ? words.inUse() : words.state(known.uplink.state)
			]);
		if (known.offer)
			return words.mark('idle', known.offer.usable ? _('offered, %s').format(words.offerCost(known.offer)) : _('offered, not usable'));
		return E('span', [ '-' ]);
	},

	/* Give a table of peers, whose rows are those of `peers` in order, the column before its last one. */
	fill(table, peers, found) {
		const place = (row, made) => {
			const old = row.querySelector('.wgup-column');

			made.classList.add('wgup-column');
			if (old)
				old.replaceWith(made);
			else
				row.insertBefore(made, row.lastElementChild);
		};

		[ ...table.querySelectorAll('tr') ].forEach((row, i) => place(row, i
			? E('td', { class: 'td' }, [ this.cell(found, (peers[i - 1] || {}).public_key) ]) : E('th', { class: 'th' }, [ this.title ])));
	}
});
