'use strict';
'require view';
'require form';
'require wireguard-uplink.detection as detection';
'require wireguard-uplink.options as options';

/*
 * The options of /etc/config/wireguard-uplink. Uplinks, trust and leases are not here: the overview
 * makes them. What an empty field means stands in it in grey.
 */

const TIMEOUT_S = 10;

/* A field whose bounds and default are those of the service. */
function field(widget, section, tab, name, title, help) {
	return options.check(section.taboption(tab, widget, name, title, help), section.section + '.' + name);
}

const value = (...args) => field(form.Value, ...args);
const flag = (...args) => field(form.Flag, ...args);
const list = (...args) => field(form.DynamicList, ...args);

function sentence(bound, timeout) {
	return bound <= timeout
		? _('A dead WAN is noticed and left after %.1f s at the latest, on the slowest one.').format(bound)
		: _('This pace needs %.1f s, which is more than %d s: take more time or the fast pace.').format(bound, timeout);
}

/* The pace and the time, and beside them what they come to. */
function detectionOptions(section) {
	const pace = section.taboption('detection', form.ListValue, 'pace', _('Pace of the tests'), _('The fast pace mostly notices a dead WAN within half a second; it sends ten small packets a second on the way in use.'));
	const timeout = value(section, 'detection', 'failover_timeout', _('Longest time to a switch (s)'));
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

	flag(section, 'general', 'enabled', _('Enabled'));
	flag(section, 'general', 'auto_failover', _('Automatic failover'), _('Traffic moves to a backup when the WAN is dead.'));
	value(section, 'general', 'min_uplinks', _('Backups to keep ready'), _('Fewer than this, and the best offers of trusted peers are added by themselves.'));
	flag(section, 'general', 'prefer_latency', _('Prefer quick peers'));
	flag(section, 'general', 'fail_closed', _('Block rather than leak'), _('When nothing answers, what would leave by the dead WAN is blocked.'));

	detectionOptions(section);
	value(section, 'detection', 'check_interval', _('Tests of idle backups, every (s)'));
	value(section, 'detection', 'hold_time', _('A WAN that is back must stay good for (s)'));
	value(section, 'detection', 'max_hold_time', _('and for so long at most, where it fails again and again (s)'));
	list(section, 'detection', 'track_ip', _('Addresses to test with'), _('Without any, public resolvers of several operators.'));
	value(section, 'detection', 'reliability', _('Addresses of a family that must answer'), _('0 is one, and half of three or more that fall silent together.'));
	value(section, 'detection', 'captive_check', _('Page that shows a captive portal'), _('An http:// page that answers 204. Without it none is asked.'))
		.placeholder = 'http://connectivitycheck.gstatic.com/generate_204';

	value(section, 'limits', 'max_loss', _('Degraded from this loss on (%)'), _('0 is no limit.'));
	value(section, 'limits', 'max_latency', _('Degraded from this latency on (ms)'), _('0 is no limit.'));
	flag(section, 'limits', 'sticky_failback', _('Let connections finish on the backup'), _('When the WAN is back, only new connections use it at once.'));
	value(section, 'limits', 'sticky_time', _('for so long at most (s)')).depends('sticky_failback', '1');

	value(section, 'mesh', 'node_id', _('Name of this router'), _('Without it that of secubox-p2p, or the host name.'));
	const trust = section.taboption('mesh', form.ListValue, 'trust', _('Who decides on trust'));
	trust.value('auto', _('master-link where it is installed'));
	trust.value('uci', _('the list below and this page'));
	trust.value('master-link', _('master-link only'));
	trust.default = 'auto';
	list(section, 'mesh', 'trusted_peer', _('Peers that may be backups'), _('Where master-link does not say so.'));
	list(section, 'mesh', 'peer', _('Peers by hand'), _('Id and mesh address: nodeB 10.9.0.2'));
	list(section, 'mesh', 'mesh', _('WireGuard devices of the mesh'), _('Without any, all that are not of this service.'));
	value(section, 'mesh', 'mesh_port', _('Port for offers (TCP)'));
	value(section, 'mesh', 'poll_interval', _('Ask for offers every (s)'));
}

function providerSection(map) {
	const section = map.section(form.NamedSection, 'local', 'provider', _('Your internet for peers'));

	section.addremove = true;
	section.tab('offer', _('Offer'));
	section.tab('network', _('Network'));

	flag(section, 'offer', 'enabled', _('Offer your internet to trusted peers'));
	value(section, 'offer', 'bandwidth_mbps', _('Speed to advertise, Mbit/s'));
	value(section, 'offer', 'limit_mbps', _('Limit for each peer, Mbit/s'), _('0 is no limit.'));
	value(section, 'offer', 'max_consumers', _('Peers at the same time'));
	flag(section, 'offer', 'metered', _('It is paid by volume'));
	value(section, 'offer', 'quota_gb', _('GB a month for all of them'), _('0 is no limit.'));
	value(section, 'offer', 'price_per_gb', _('Price of a GB'), _('In what the mesh counts in; cheaper offers are taken first.'));
	value(section, 'offer', 'reset_day', _('Day that begins the month'));

	value(section, 'network', 'listen_port', _('Port of the tunnels (UDP)'));
	value(section, 'network', 'endpoint', _('Address from outside'), _('Without it the public address of the WAN.'));
	value(section, 'network', 'pool4', _('Network for peers (IPv4)'), _('Without it one is chosen.'));
	value(section, 'network', 'pool6', _('Network for peers (IPv6)'), _('Without it one is chosen.'));
	list(section, 'network', 'dns', _('Resolvers for peers'), _('Without any, those of the WAN.'));
	value(section, 'network', 'lease_time', _('A silent peer keeps its addresses for (s)'));
}

function brokerSection(map) {
	const section = map.section(form.NamedSection, 'broker', 'mqtt', _('MQTT for large meshes'), _('Carries offers where this router can not ask every peer itself.'));
	const row = (widget, name, title) => options.check(section.option(widget, name, title), 'broker.' + name);

	section.addremove = true;
	row(form.Flag, 'enabled', _('Enabled'));
	row(form.Value, 'host', _('Host')).placeholder = 'mqtt.example.com';
	row(form.Value, 'port', _('Port')).placeholder = '1883';
	row(form.Flag, 'tls', _('Encrypted (TLS)'));
	row(form.Value, 'ca_file', _('File of the certificate authority')).placeholder = '/etc/ssl/certs/mesh-ca.pem';
	row(form.Value, 'user', _('User'));
	row(form.Value, 'prefix', _('Prefix of the topics'));
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
