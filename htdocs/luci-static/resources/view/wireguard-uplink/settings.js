'use strict';
'require view';
'require form';
'require wireguard-uplink.detection as detection';

/*
 * The options of /etc/config/wireguard-uplink. Uplinks, trust and leases are not here: the overview
 * makes them. What an empty field means stands in it in grey.
 */

const TIMEOUT_S = 10;

function number(section, tab, name, title, range, fallback, help) {
	const option = section.taboption(tab, form.Value, name, title, help);

	option.datatype = range;
	option.placeholder = fallback;
	return option;
}

function flag(section, tab, name, title, fallback, help) {
	const option = section.taboption(tab, form.Flag, name, title, help);

	option.default = fallback;
	return option;
}

function list(section, tab, name, title, datatype, help) {
	const option = section.taboption(tab, form.DynamicList, name, title, help);

	option.datatype = datatype;
	return option;
}

function sentence(bound, timeout) {
	return bound <= timeout
		? _('A dead line is noticed and left after %.1f s at the latest, on the slowest line.').format(bound)
		: _('This pace needs %.1f s, which is more than %d s: take more time or the fast pace.').format(bound, timeout);
}

/* The pace and the time, and beside them what they come to. */
function detectionOptions(section) {
	const pace = section.taboption('detection', form.ListValue, 'pace', _('Pace of the probes'), _('The fast pace mostly notices a dead line within half a second; it sends ten probes a second on the path in use.'));
	const timeout = number(section, 'detection', 'failover_timeout', _('Longest time to a switch (s)'), 'range(1,3600)', String(TIMEOUT_S));
	const bound = section.taboption('detection', form.DummyValue, '_bound', _('Detection'));
	const told = (id, changed) => {
		const values = Object.assign({ pace: pace.formvalue(id), timeout: timeout.formvalue(id) }, changed);
		const seconds = +(values.timeout || TIMEOUT_S);

		return sentence(detection.bound(values.pace || 'default', seconds), seconds);
	};
	const tell = (id, changed) => {
		const place = document.getElementById('wgup-bound');

		if (place)
			place.textContent = told(id, changed);
	};

	pace.value('default', _('normal'));
	pace.value('fast', _('fast'));
	pace.default = 'default';
	pace.onchange = (event, id, value) => {
		tell(id, { pace: value });
		timeout.triggerValidation(id);
	};
	timeout.onchange = (event, id, value) => tell(id, { timeout: value });
	timeout.validate = (id, value) => {
		const seconds = +(value || TIMEOUT_S);
		const needed = detection.bound(pace.formvalue(id) || 'default', seconds);

		return needed <= seconds ? true : sentence(needed, seconds);
	};
	bound.renderWidget = (id) => {
		const seconds = +(timeout.cfgvalue(id) || TIMEOUT_S);

		return E('output', { 'id': 'wgup-bound' }, [ sentence(detection.bound(pace.cfgvalue(id) || 'default', seconds), seconds) ]);
	};
	bound.write = bound.remove = () => {};
}

function mainSection(map) {
	const section = map.section(form.NamedSection, 'uplink', 'wireguard-uplink');

	section.tab('general', _('General'));
	section.tab('detection', _('Detection'));
	section.tab('limits', _('Limits'));
	section.tab('mesh', _('Mesh'));

	flag(section, 'general', 'enabled', _('Enabled'), '1');
	flag(section, 'general', 'auto_failover', _('Automatic failover'), '1', _('Traffic moves to an uplink when the own line is dead.'));
	number(section, 'general', 'min_uplinks', _('Uplinks to keep ready'), 'range(0,60)', '2', _('Fewer than this, and the best offers of trusted peers are added by themselves.'));
	flag(section, 'general', 'prefer_latency', _('Prefer quick peers'), '1');
	flag(section, 'general', 'fail_closed', _('Block rather than leak'), '0', _('When no path answers, what would leave by the dead line is blocked.'));

	detectionOptions(section);
	number(section, 'detection', 'check_interval', _('Checks of idle uplinks, every (s)'), 'range(1,3600)', '30');
	number(section, 'detection', 'hold_time', _('A returned line must stay good for (s)'), 'range(0,86400)', '30');
	number(section, 'detection', 'max_hold_time', _('and for so long at most, where it fails again and again (s)'), 'range(0,86400)', '1800');
	list(section, 'detection', 'track_ip', _('Addresses to probe'), 'ipaddr', _('Without any, public resolvers of several operators.'));
	number(section, 'detection', 'reliability', _('Addresses of a family that must answer'), 'range(0,20)', '0', _('0 is one, and half of three or more that fall silent together.'));
	section.taboption('detection', form.Value, 'captive_check', _('Page that shows a captive portal'), _('An http:// page that answers 204. Without it none is asked.'))
		.placeholder = 'http://connectivitycheck.gstatic.com/generate_204';

	number(section, 'limits', 'max_loss', _('Degraded from this loss on (%)'), 'range(0,100)', '20', _('0 is no limit.'));
	number(section, 'limits', 'max_latency', _('Degraded from this latency on (ms)'), 'range(0,60000)', '0', _('0 is no limit.'));
	flag(section, 'limits', 'sticky_failback', _('Let connections finish on the uplink'), '0', _('When the own line is back, only new connections use it at once.'));
	number(section, 'limits', 'sticky_time', _('for so long at most (s)'), 'range(1,86400)', '600').depends('sticky_failback', '1');

	section.taboption('mesh', form.Value, 'node_id', _('Name of this router'), _('Without it that of secubox-p2p, or the host name.'));
	const trust = section.taboption('mesh', form.ListValue, 'trust', _('Who decides on trust'));
	trust.value('auto', _('master-link where it is installed'));
	trust.value('uci', _('the list below and this page'));
	trust.value('master-link', _('master-link only'));
	trust.default = 'auto';
	list(section, 'mesh', 'trusted_peer', _('Peers that may be uplinks'), 'maxlength(64)', _('Where master-link does not say so.'));
	list(section, 'mesh', 'peer', _('Peers by hand'), 'string', _('Id and mesh address: nodeB 10.9.0.2'));
	list(section, 'mesh', 'mesh', _('WireGuard devices of the mesh'), 'maxlength(15)', _('Without any, all that are not of this service.'));
	number(section, 'mesh', 'mesh_port', _('Port for offers and leases (TCP)'), 'port', '7333');
	number(section, 'mesh', 'poll_interval', _('Ask for offers every (s)'), 'range(1,3600)', '120');
}

function providerSection(map) {
	const section = map.section(form.NamedSection, 'local', 'provider', _('This line for others'));

	section.addremove = true;
	section.tab('offer', _('Offer'));
	section.tab('network', _('Network'));

	flag(section, 'offer', 'enabled', _('Offer this line to trusted peers'), '0');
	number(section, 'offer', 'bandwidth_mbps', _('Speed to advertise, Mbit/s'), 'range(0,1000000)', '');
	number(section, 'offer', 'limit_mbps', _('Limit for each peer, Mbit/s'), 'range(0,100000)', '0', _('0 is no limit.'));
	number(section, 'offer', 'max_consumers', _('Peers at the same time'), 'range(1,200)', '8');
	flag(section, 'offer', 'metered', _('The line is paid by volume'), '0');
	number(section, 'offer', 'quota_gb', _('GB a month for all of them'), 'ufloat', '0', _('0 is no limit.'));
	number(section, 'offer', 'price_per_gb', _('Price of a GB'), 'ufloat', '0', _('In what the mesh counts in; cheaper offers are taken first.'));
	number(section, 'offer', 'reset_day', _('Day that begins the month'), 'range(1,31)', '1');

	number(section, 'network', 'listen_port', _('Port of the tunnels (UDP)'), 'port', '51821');
	section.taboption('network', form.Value, 'endpoint', _('Address from outside'), _('Without it the public address of the line.')).datatype = 'host';
	section.taboption('network', form.Value, 'pool4', _('Network for peers (IPv4)'), _('Without it one is chosen.')).datatype = 'cidr4';
	section.taboption('network', form.Value, 'pool6', _('Network for peers (IPv6)'), _('Without it one is chosen.')).datatype = 'cidr6';
	list(section, 'network', 'dns', _('Resolvers for peers'), 'ipaddr', _('Without any, those of the line.'));
	number(section, 'network', 'lease_time', _('A lease holds without a sign of life for (s)'), 'range(5,604800)', '3600');
}

function brokerSection(map) {
	const section = map.section(form.NamedSection, 'broker', 'mqtt', _('Broker for large meshes'), _('Carries offers where this router can not ask every peer itself.'));
	const value = (name, title, datatype, placeholder) => {
		const option = section.option(form.Value, name, title);

		option.datatype = datatype;
		option.placeholder = placeholder;
	};

	section.addremove = true;
	section.option(form.Flag, 'enabled', _('Enabled'));
	value('host', _('Host'), 'host', 'mqtt.example.com');
	value('port', _('Port'), 'port', '1883');
	section.option(form.Flag, 'tls', _('Encrypted (TLS)'));
	value('ca_file', _('File of the certificate authority'), 'string', '/etc/ssl/certs/mesh-ca.pem');
	value('user', _('User'), 'string', '');
	value('prefix', _('Prefix of the topics'), 'string', 'secubox/uplink');
}

return view.extend({
	render: function() {
		const map = new form.Map('wireguard-uplink', _('Backup uplinks: settings'), _('An empty field means the value that stands in it in grey.'));

		mainSection(map);
		providerSection(map);
		brokerSection(map);
		return map.render();
	}
});
