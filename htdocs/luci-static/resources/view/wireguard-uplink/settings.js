'use strict';
'require view';
'require form';
'require wireguard-uplink.fields as fields';

/*
 * The options of /etc/config/wireguard-uplink. Uplinks, trust and leases are not here: the overview
 * makes them. What an empty field means stands in it in grey.
 */

const TIMEOUT_S = 10;

/* Makers of a section's fields, whose bounds and defaults are those of the service. */
function makers(section) {
	return [ form.Value, form.Flag, form.DynamicList ].map((widget) => (tab, name, title, help) =>
		fields.check(section.taboption(tab, widget, name, title, help), section.section + '.' + name));
}

function sentence(bound, timeout) {
	return bound <= timeout
		? _('A dead WAN is noticed and left after %.1f s at the latest, on the slowest one.').format(bound)
		: _('This pace needs %.1f s, which is more than %d s: take more time or the fast pace.').format(bound, timeout);
}

/* The pace and the time, and beside them what they come to. */
function detectionOptions(section) {
	const [ value, , list ] = makers(section);
	const pace = section.taboption('detection', form.ListValue, 'pace', _('Pace of the tests'), _('The fast pace mostly notices a dead WAN within half a second; it sends ten small packets a second on the way in use.'));
	const timeout = value('detection', 'failover_timeout', _('Longest time to a switch (s)'));
	const bound = section.taboption('detection', form.DummyValue, '_bound', _('Detection'));
	const told = (id, changed) => {
		const values = Object.assign({ pace: pace.formvalue(id), timeout: timeout.formvalue(id) }, changed);
		const seconds = +(values.timeout || TIMEOUT_S);

		return sentence(fields.bound(values.pace || 'default', seconds), seconds);
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
		const needed = fields.bound(pace.formvalue(id) || 'default', seconds);

		return needed <= seconds ? true : sentence(needed, seconds);
	};
	bound.renderWidget = (id) => {
		const seconds = +(timeout.cfgvalue(id) || TIMEOUT_S);

		return E('output', { id: 'wgup-bound' }, [ sentence(fields.bound(pace.cfgvalue(id) || 'default', seconds), seconds) ]);
	};
	bound.write = bound.remove = () => {};
}

function mainSection(map) {
	const section = map.section(form.NamedSection, 'uplink', 'wireguard-uplink');
	const [ value, flag, list ] = makers(section);

	section.tab('general', _('General'));
	section.tab('detection', _('Detection'));
	section.tab('limits', _('Limits'));
	section.tab('mesh', _('Mesh'));

	flag('general', 'enabled', _('Enabled'));
	flag('general', 'auto_failover', _('Automatic failover'), _('Traffic moves to a backup when the WAN is dead.'));
	value('general', 'min_uplinks', _('Backups to keep ready'), _('Fewer than this, and the best offers of trusted peers are added by themselves.'));
	flag('general', 'prefer_latency', _('Prefer quick peers'));
	flag('general', 'fail_closed', _('Block rather than leak'), _('When nothing answers, what would leave by the dead WAN is blocked.'));

	detectionOptions(section);
	value('detection', 'check_interval', _('Tests of idle backups, every (s)'));
	value('detection', 'hold_time', _('A WAN that is back must stay good for (s)'));
	value('detection', 'max_hold_time', _('and for so long at most, where it fails again and again (s)'));
	list('detection', 'track_ip', _('Addresses to test with'), _('Without any, public resolvers of several operators.'));
	value('detection', 'reliability', _('Addresses of a family that must answer'), _('0 is one, and half of three or more that fall silent together.'));
	value('detection', 'captive_check', _('Page that shows a captive portal'), _('An http:// page that answers 204. Without it none is asked.'))
		.placeholder = 'http://connectivitycheck.gstatic.com/generate_204';

	value('limits', 'max_loss', _('Degraded from this loss on (%)'), _('0 is no limit.'));
	value('limits', 'max_latency', _('Degraded from this latency on (ms)'), _('0 is no limit.'));
	flag('limits', 'sticky_failback', _('Let connections finish on the backup'), _('When the WAN is back, only new connections use it at once.'));
	value('limits', 'sticky_time', _('for so long at most (s)')).depends('sticky_failback', '1');

	value('mesh', 'node_id', _('Name of this router'), _('Without it that of secubox-p2p, or the host name.'));
	const trust = section.taboption('mesh', form.ListValue, 'trust', _('Who decides on trust'));
	trust.value('auto', _('master-link where it is installed'));
	trust.value('uci', _('the list below and this page'));
	trust.value('master-link', _('master-link only'));
	trust.default = 'auto';
	list('mesh', 'trusted_peer', _('Peers that may be backups'), _('Where master-link does not say so.'));
	list('mesh', 'peer', _('Peers by hand'), _('Id and mesh address: nodeB 10.9.0.2'));
	list('mesh', 'mesh', _('WireGuard devices of the mesh'), _('Without any, all that are not of this service.'));
	value('mesh', 'mesh_port', _('Port for offers (TCP)'));
	value('mesh', 'poll_interval', _('Ask for offers every (s)'));
}

function providerSection(map) {
	const section = map.section(form.NamedSection, 'local', 'provider', _('Your internet for peers'));
	const [ value, flag, list ] = makers(section);

	section.addremove = true;
	section.tab('offer', _('Offer'));
	section.tab('network', _('Network'));

	flag('offer', 'enabled', _('Offer your internet to trusted peers'));
	value('offer', 'bandwidth_mbps', _('Speed to advertise, Mbit/s'));
	value('offer', 'limit_mbps', _('Limit for each peer, Mbit/s'), _('0 is no limit.'));
	value('offer', 'max_consumers', _('Peers at the same time'));
	flag('offer', 'metered', _('It is paid by volume'));
	value('offer', 'quota_gb', _('GB a month for all of them'), _('0 is no limit.'));
	value('offer', 'price_per_gb', _('Price of a GB'), _('In what the mesh counts in; cheaper offers are taken first.'));
	value('offer', 'reset_day', _('Day that begins the month'));

	value('network', 'listen_port', _('Port of the tunnels (UDP)'));
	value('network', 'endpoint', _('Address from outside'), _('Without it the public address of the WAN.'));
	value('network', 'pool4', _('Network for peers (IPv4)'), _('Without it one is chosen.'));
	value('network', 'pool6', _('Network for peers (IPv6)'), _('Without it one is chosen.'));
	list('network', 'dns', _('Resolvers for peers'), _('Without any, those of the WAN.'));
	value('network', 'lease_time', _('A silent peer keeps its addresses for (s)'));
}

function brokerSection(map) {
	const section = map.section(form.NamedSection, 'broker', 'mqtt', _('MQTT for large meshes'), _('Carries offers where this router can not ask every peer itself.'));
	const row = (widget, name, title) => fields.check(section.option(widget, name, title), 'broker.' + name);

	section.addremove = true;
	row(form.Flag, 'enabled', _('Enabled'));
	row(form.Value, 'host', _('Host')).placeholder = 'mqtt.example.com';
	row(form.Value, 'port', _('Port')).placeholder = '1883';
	row(form.Flag, 'tls', _('Encrypted (TLS)'));
	row(form.Value, 'ca_file', _('File of the certificate authority')).placeholder = '/etc/ssl/certs/mesh-ca.pem';
	row(form.Value, 'user', _('User'));
	row(form.Value, 'prefix', _('Prefix of the topics'));
	row(form.DynamicList, 'area', _('Areas whose offers are taken'));
}

return view.extend({
	render() {
		const map = new form.Map('wireguard-uplink', _('Backup uplinks: settings'), _('An empty field means the value that stands in it in grey.'));

		mainSection(map);
		providerSection(map);
		brokerSection(map);
		return map.render();
	}
});
