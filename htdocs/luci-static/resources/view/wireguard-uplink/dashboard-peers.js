'use strict';
'require view';
'require poll';
'require wireguard-dashboard.api as dashboard';
'require wireguard-uplink.peers-column as column';

/*
 * The dashboard's own view of peers with our column in its table. The menu names this view for the
 * dashboard's entry as long as this package is installed; none of the dashboard's files is changed.
 */

const EVERY_S = 15;

return view.extend({
	__init__() {
		const place = document.getElementById('view');
		const watch = new MutationObserver(() => {
			if (place.querySelector('#peers-table') && !place.querySelector('.wgup-column'))
				this.fill(place);
		});

		watch.observe(place, { childList: true, subtree: true });
		poll.add(() => this.fill(place), EVERY_S);
		return L.require('view.wireguard-dashboard.peers');
	},

	fill(place) {
		return Promise.all([ dashboard.getPeers(), column.load() ]).then(([ reply, found ]) => {
			const table = place.querySelector('#peers-table');

			if (table)
				column.fill(table, L.toArray(Array.isArray(reply) ? reply : reply.peers), found);
		}).catch(() => {});
	}
});
