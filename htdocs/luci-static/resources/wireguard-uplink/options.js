'use strict';
'require baseclass';

/* Made from rpcd_wireguard_uplink/config/options.py by `make generate`; don't edit. */

return baseclass.extend({
	/* What some options must match, and how that is said. */
	kinds: [
		[ /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$/, _('1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit') ],
		[ /^(?:http:\/\/[A-Za-z0-9.\[][!-~]{0,190})$/, _('the URL of a page that answers 204, and begin with http://') ],
		[ /^(?:(?!wgup)[A-Za-z0-9_.-]{1,15})$/, _('a WireGuard device that is none of this service\'s') ],
		[ /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63} +[0-9A-Fa-f.:]+)$/, _('a peer\'s id and its address in the mesh, as in \'nodeA 10.9.0.1\'') ],
		[ /^(?:\/[^\x00-\x1f\x7f]{1,254})$/, _('a file\'s whole path') ],
		[ /^(?:[0-9A-Za-z_.-]+(?:\/[0-9A-Za-z_.-]+)*)$/, _('words of a topic with / between them') ],
		[ /^(?:[1-5]?[0-9]|6[0-3]|[Cc][Ss][0-7]|[Aa][Ff][1-4][1-3]|[Ee][Ff]|[Vv][Aa]|[Ll][Ee])$/, _('a code point: a number from 0 to 63, or a name as EF, AF41, CS5') ]
	],

	/* How long a dead WAN may go unnoticed (s): at least, at most, less than failover_timeout. */
	paces: {
		default: [2.25, 5.216667, 1.75],
		fast: [1.0, 3.6, 0.0]
	},

	/* By section: the default of a flag, else default ([] for a list), datatype and kind. */
	sections: {
		uplink: {
			enabled: '1',
			auto_failover: '1',
			min_uplinks: [ '2', 'range(0,60)' ],
			check_interval: [ '30', 'range(1,3600)' ],
			failover_timeout: [ '10', 'range(1,3600)' ],
			prefer_latency: '1',
			pace: [ 'default' ],
			early_failover: [ 'free' ],
			hold_time: [ '30', 'range(0,86400)' ],
			max_hold_time: [ '1800', 'range(0,86400)' ],
			track_ip: [ [], 'ipaddr(1)' ],
			reliability: [ '0', 'range(0,20)' ],
			trusted_peer: [ [], '', 0 ],
			dns: [ [], 'ipaddr(1)' ],
			captive_check: [ '', '', 1 ],
			fail_closed: '0',
			spread: '0',
			sticky_failback: '0',
			sticky_time: [ '600', 'range(1,86400)' ],
			max_loss: [ '20', 'range(0,100)' ],
			max_latency: [ '0', 'range(0,60000)' ],
			node_id: [ '', '', 0 ],
			mesh: [ [], '', 2 ],
			mesh_port: [ '7333', 'port' ],
			peer: [ [], '', 3 ],
			trust: [ 'auto' ],
			poll_interval: [ '120', 'range(1,3600)' ]
		},
		local: {
			enabled: '0',
			bandwidth_mbps: [ '0', 'range(0,1000000)' ],
			metered: '0',
			quota_gb: [ '0', 'and(ufloat,max(1000000))' ],
			price_per_gb: [ '0', 'and(ufloat,max(1000000))' ],
			reset_day: [ '1', 'range(1,31)' ],
			limit_mbps: [ '0', 'range(0,100000)' ],
			max_consumers: [ '8', 'range(1,200)' ],
			lease_time: [ '3600', 'range(5,604800)' ],
			listen_port: [ '51821', 'port' ],
			endpoint: [ '', 'host' ],
			pool4: [ '', 'cidr4' ],
			pool6: [ '', 'cidr6' ],
			dns: [ [], 'ipaddr(1)' ]
		},
		broker: {
			enabled: '0',
			host: [ '', 'host' ],
			port: [ '', 'port' ],
			tls: '0',
			ca_file: [ '', '', 4 ],
			prefix: [ 'secubox/uplink', '', 5 ],
			area: [ [], '', 0 ]
		},
		anchor: {
			peer: [ '', '', 0 ],
			source: [ [], 'or(ipaddr(1),cidr)' ],
			destination: [ [], 'or(ipaddr(1),cidr)' ],
			protocol: [ [] ],
			port: [ [], 'portrange' ],
			dscp: [ [], '', 6 ],
			enabled: '1'
		}
	}
});
