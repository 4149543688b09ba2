'use strict';
'require baseclass';

/* Made from rpcd_wireguard_uplink/config/options.py by `make generate`; don't edit. */

const OPTIONS = {
	'uplink.enabled': { fallback: '1' },
	'uplink.auto_failover': { fallback: '1' },
	'uplink.min_uplinks': { fallback: '2', datatype: 'range(0,60)' },
	'uplink.check_interval': { fallback: '30', datatype: 'range(1,3600)' },
	'uplink.failover_timeout': { fallback: '10', datatype: 'range(1,3600)' },
	'uplink.prefer_latency': { fallback: '1' },
	'uplink.pace': { fallback: 'default', datatype: 'string' },
	'uplink.hold_time': { fallback: '30', datatype: 'range(0,86400)' },
	'uplink.max_hold_time': { fallback: '1800', datatype: 'range(0,86400)' },
	'uplink.track_ip': { datatype: 'ipaddr' },
	'uplink.reliability': { fallback: '0', datatype: 'range(0,20)' },
	'uplink.trusted_peer': { datatype: 'string', pattern: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$/, must: _('1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit') },
	'uplink.declined': { datatype: 'string', pattern: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$/, must: _('1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit') },
	'uplink.wan': { datatype: 'string' },
	'uplink.policy': { datatype: 'string' },
	'uplink.dns': { datatype: 'ipaddr' },
	'uplink.captive_check': { datatype: 'string', pattern: /^(?:http:\/\/[A-Za-z0-9.\[][!-~]{0,190})$/, must: _('the URL of a page that answers 204, and begin with http://') },
	'uplink.fail_closed': { fallback: '0' },
	'uplink.sticky_failback': { fallback: '0' },
	'uplink.sticky_time': { fallback: '600', datatype: 'range(1,86400)' },
	'uplink.max_loss': { fallback: '20', datatype: 'range(0,100)' },
	'uplink.max_latency': { fallback: '0', datatype: 'range(0,60000)' },
	'uplink.imported': { fallback: '0' },
	'uplink.node_id': { datatype: 'string', pattern: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})$/, must: _('1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter or digit') },
	'uplink.mesh': { datatype: 'string', pattern: /^(?:(?!wgup)[A-Za-z0-9_.-]{1,15})$/, must: _('a WireGuard device that is none of this service\'s') },
	'uplink.mesh_port': { fallback: '7333', datatype: 'port' },
	'uplink.carrier': { datatype: 'string' },
	'uplink.peer': { datatype: 'string', pattern: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63} +[0-9A-Fa-f.:]+)$/, must: _('a peer\'s id and its address in the mesh, as in \'nodeA 10.9.0.1\'') },
	'uplink.trust': { fallback: 'auto', datatype: 'string' },
	'uplink.poll_interval': { fallback: '120', datatype: 'range(1,3600)' },
	'local.enabled': { fallback: '0' },
	'local.bandwidth_mbps': { fallback: '0', datatype: 'range(0,1000000)' },
	'local.latency_ms': { datatype: 'and(ufloat,max(60000))' },
	'local.wan_type': { datatype: 'string', pattern: /^(?:[0-9A-Za-z_.\/+ -]{1,32})$/, must: _('at most 32 plain characters') },
	'local.metered': { fallback: '0' },
	'local.quota_gb': { fallback: '0', datatype: 'and(ufloat,max(1000000))' },
	'local.price_per_gb': { fallback: '0', datatype: 'and(ufloat,max(1000000))' },
	'local.reset_day': { fallback: '1', datatype: 'range(1,31)' },
	'local.limit_mbps': { fallback: '0', datatype: 'range(0,100000)' },
	'local.max_consumers': { fallback: '8', datatype: 'range(1,200)' },
	'local.lease_time': { fallback: '3600', datatype: 'range(5,604800)' },
	'local.listen_port': { fallback: '51821', datatype: 'port' },
	'local.endpoint': { datatype: 'host' },
	'local.pool4': { datatype: 'cidr4' },
	'local.pool6': { datatype: 'cidr6' },
	'local.dns': { datatype: 'ipaddr' },
	'broker.enabled': { fallback: '0' },
	'broker.host': { datatype: 'host' },
	'broker.port': { datatype: 'port' },
	'broker.user': { datatype: 'string' },
	'broker.password_file': { datatype: 'string', pattern: /^(?:\/[^\x00-\x1f\x7f]{1,254})$/, must: _('a file\'s whole path') },
	'broker.tls': { fallback: '0' },
	'broker.ca_file': { datatype: 'string', pattern: /^(?:\/[^\x00-\x1f\x7f]{1,254})$/, must: _('a file\'s whole path') },
	'broker.prefix': { fallback: 'secubox/uplink', datatype: 'string', pattern: /^(?:[0-9A-Za-z_.-]+(?:\/[0-9A-Za-z_.-]+)*)$/, must: _('words of a topic with / between them') }
};

return baseclass.extend({
	/* Have a field of the form take what the service takes, and show the default. */
	check: function(field, name) {
		const option = OPTIONS[name];

		if (option.datatype)
			field.datatype = option.datatype;
		field[option.datatype ? 'placeholder' : 'default'] = option.fallback;
		if (option.pattern)
			field.validate = (id, value) => option.pattern.test(value) || !value || option.must;

		return field;
	}
});
