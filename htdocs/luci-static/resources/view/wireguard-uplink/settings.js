'use strict';
'require view';
'require form';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.fields as fields';
'require wireguard-uplink.words as words';

/*
 * The options of /etc/config/wireguard-uplink. Uplinks, trust and leases are not here: the overview
 * makes them. What an empty field means stands in it in grey.
 */

/* Add fields to a section and return them by name. A row is an option's name, its title, help, and
 * its choices. Kind, bounds and default are those of the service. */
function add(section, tab, rows) {
	const made = {};

	for (const [ name, title, help, choices ] of rows) {
		const full = (section.section || section.sectiontype) + '.' + name, widget = form[fields.widget(full, choices)];
		const field = made[name] = fields.check(tab ? section.taboption(tab, widget, name, title, help) : section.option(widget, name, title, help), full);

		for (const value in choices) {
			field.value(value, choices[value]);
			field.default = field.placeholder;
		}
	}
	return made;
}

/* The pace and the time, and below them what they come to. */
function detectionOptions(section) {
	const { pace, failover_timeout: timeout } = add(section, 'detection', [
		[ 'pace', _('Pace of the tests'), _('The fast pace notices most outages within half a second, by ten small packets a second.'), {
			default: _('normal'), fast: _('fast')
		} ],
		[ 'failover_timeout', _('Longest time to a switch (s)') ]
	]);
	const shown = section.taboption('detection', form.DummyValue, '_bound', _('Detection'));
	const now = (field, id) => field.formvalue(id) || field.placeholder;
	const judged = (paceName, seconds) => {
		const bound = fields.bound(paceName, seconds);

		return bound <= seconds
			? [ true, _('A dead WAN is noticed and left after %s s at the latest, on the slowest one.').format(words.number(bound, 1)) ]
			: [ false, _('This pace needs %s s, which is more than %s s: take more time or the fast pace.').format(words.number(bound, 1), seconds) ];
	};
	const judge = (id) => judged(now(pace, id), +now(timeout, id));

	pace.onchange = timeout.onchange = (event, id) => {
		document.getElementById('wgup-bound').textContent = judge(id)[1];
		timeout.triggerValidation(id);
	};
	timeout.validate = (id) => judge(id)[0] || judge(id)[1];
	shown.renderWidget = (id) => E('output', { id: 'wgup-bound' }, [
		judged(pace.cfgvalue(id) || pace.placeholder, +(timeout.cfgvalue(id) || timeout.placeholder))[1]
	]);
	shown.write = shown.remove = () => {};
}

function mainSection(map) {
	const section = map.section(form.NamedSection, 'uplink', 'wireguard-uplink');

	section.tab('general', _('General'));
	section.tab('detection', _('Detection'));
	section.tab('limits', _('Limits'));
	section.tab('mesh', _('Mesh'));

	add(section, 'general', [
		[ 'enabled', _('Enabled') ],
		[ 'auto_failover', _('Automatic failover') ],
		[ 'min_uplinks', _('Backups to keep ready'), _('Fewer than this, and the best offers of trusted peers are added by themselves.') ],
		[ 'prefer_latency', _('Prefer quick peers') ],
		[ 'spread', _('Use several backups at once'), _('In an outage, new connections spread over the backups that cost the same.') ],
		[ 'fail_closed', _('Block rather than leak'), _('When nothing answers, what would leave by the dead WAN is blocked.') ]
	]);
	detectionOptions(section);
	add(section, 'detection', [
		[ 'early_failover', _('At the first doubt of the WAN'), _('New connections may leave by a backup at once, and by the WAN again when it answers.'), {
			off: _('wait until it is dead'), free: _('use a free backup'), all: _('use any backup')
		} ],
		[ 'check_interval', _('Tests of idle backups, every (s)') ],
		[ 'hold_time', _('A WAN that is back must stay good for (s)') ],
		[ 'max_hold_time', _('and for so long at most, where it fails again and again (s)') ],
		[ 'track_ip', _('Addresses to test with'), _('Without any, public resolvers of several operators.') ],
		[ 'reliability', _('Addresses of a family that must answer'), _('0 is one, and half of three or more that fall silent together.') ],
		[ 'captive_check', _('Page that shows a captive portal') ]
	]);
	add(section, 'limits', [
		[ 'max_loss', _('Degraded from this loss on (%)'), _('0 is no limit.') ],
		[ 'max_latency', _('Degraded from this latency on (ms)'), _('0 is no limit.') ],
		[ 'sticky_failback', _('Let connections finish on the backup') ],
		[ 'sticky_time', _('for so long at most (s)') ]
	]).sticky_time.depends('sticky_failback', '1');
	add(section, 'mesh', [
		[ 'node_id', _('Name of this router'), _('Without it that of secubox-p2p, or the host name.') ],
		[ 'trust', _('Who decides on trust'), null, {
			auto: _('master-link where it is installed'), uci: _('the list below and this page'), 'master-link': _('master-link only')
		} ],
		[ 'trusted_peer', _('Peers that may be backups') ],
		[ 'peer', _('Peers by hand (nodeB 10.9.0.2)') ],
		[ 'mesh', _('WireGuard devices of the mesh'), _('Without any, all that are not of this service.') ],
		[ 'mesh_port', _('Port for offers (TCP)') ],
		[ 'poll_interval', _('Ask for offers every (s)') ]
	]);
}

function providerSection(map) {
	const section = map.section(form.NamedSection, 'local', 'provider', _('Your internet for peers'));

	section.addremove = true;
	section.tab('offer', _('Offer'));
	section.tab('network', _('Network'));

	add(section, 'offer', [
		[ 'enabled', _('Offer your internet to trusted peers') ],
		[ 'bandwidth_mbps', _('Speed to advertise, Mbit/s') ],
		[ 'limit_mbps', _('Limit for each peer, Mbit/s'), _('0 is no limit.') ],
		[ 'max_consumers', _('Peers at the same time') ],
		[ 'metered', _('It is paid by volume') ],
		[ 'quota_gb', _('GB a month for all of them'), _('0 is no limit.') ],
		[ 'price_per_gb', _('Price of a GB'), _('Cheaper offers are taken first.') ],
		[ 'reset_day', _('Day that begins the month') ]
	]);
	add(section, 'network', [
		[ 'listen_port', _('Port of the tunnels (UDP)') ],
		[ 'endpoint', _('Address from outside'), _('Without it the public address of the WAN.') ],
		[ 'pool4', _('Network for peers (IPv4)'), _('Without it one is chosen.') ],
		[ 'pool6', _('Network for peers (IPv6)') ],
		[ 'dns', _('Resolvers for peers'), _('Without any, those of the WAN.') ],
		[ 'lease_time', _('A silent peer keeps its addresses for (s)') ]
	]);
}

function brokerSection(map) {
	const section = map.section(form.NamedSection, 'broker', 'mqtt', _('MQTT for large meshes'));

	section.addremove = true;
	add(section, '', [
		[ 'enabled', _('Enabled') ],
		[ 'host', _('Host') ],
		[ 'port', _('Port') ],
		[ 'tls', _('Encrypted (TLS)') ],
		[ 'ca_file', _('File of the certificate authority') ],
		[ 'user', _('User') ],
		[ 'prefix', _('Prefix of the topics') ],
		[ 'area', _('Areas whose offers are taken') ]
	]).port.placeholder = '1883';
}

/* Connections that keep one address, in the order in which they are tried. */
function anchorSection(map, peers) {
	const section = map.section(form.GridSection, 'anchor', _('Anchored connections'), _('They always leave by the tunnel of one peer while it answers, and so keep their address when the WAN fails: for calls and logins.'));

	section.addremove = section.anonymous = section.sortable = true;

	const { peer, enabled, source, ...others } = add(section, '', [
		[ 'peer', _('Peer') ],
		[ 'source', _('From these addresses of the LAN') ],
		[ 'destination', _('To these addresses') ],
		[ 'protocol', _('Protocols'), null, Object.fromEntries([ 'tcp', 'udp', 'icmp', 'sctp', 'esp', 'ah', 'gre' ].map((each) => [ each, each.toUpperCase() ])) ],
		[ 'port', _('Ports of the destination') ],
		[ 'dscp', _('DSCP marks') ],
		[ 'enabled', _('Enabled') ]
	]);
	const isId = peer.validate;

	peer.rmempty = false;
	peers.forEach((each) => peer.value(each));
	/* LuCI's window has copies of the fields: `this` is the one in it. */
	peer.validate = function(id, value) {
		const given = [ 'source', 'destination', 'protocol', 'port', 'dscp' ].map((name) => L.toArray(this.section.formvalue(id, name)));
		const [ sources, destinations, protocols, ports ] = given;

		if (!given.flat().length)
			return _('Say which connections: by address, protocol, port or DSCP.');
		if (ports.length && protocols.length && !protocols.some((each) => [ 'tcp', 'udp' ].includes(each)))
			return _('Only TCP and UDP have ports.');
		if (sources.length && destinations.length && !sources.some((one) => destinations.some((other) => one.includes(':') == other.includes(':'))))
			return _('Sources and destinations are of different families.');
		return isId(id, value);
	};
	for (const each of [ source, ...Object.values(others) ])
		each.onchange = function(event, id) { this.section.getUIElement(id, 'peer').triggerValidation(); };
	for (const each of Object.values(others))
		each.modalonly = true;
	enabled.editable = true;
}

return view.extend({
	load: () => bus.ask('list').then((list) => list.uplinks.map((each) => each.peer_id), () => []),

	render(peers) {
		const map = new form.Map('wireguard-uplink', _('Backup uplinks: settings'), _('An empty field means the value that stands in it in grey.'));

		mainSection(map);
		providerSection(map);
		brokerSection(map);
		anchorSection(map, peers);
		return map.render();
	}
});
