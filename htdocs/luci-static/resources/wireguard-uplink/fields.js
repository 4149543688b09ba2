'use strict';
'require baseclass';
'require validation';
'require wireguard-uplink.options as options';

/*
 * What the fields of the settings know of the service: what it takes and what it does without them
 * (options.js), and how long a dead WAN may go unnoticed by them.
 */

function found(name) {
	const [ section, option ] = name.split('.');

	return options.sections[section][option] || [];
}

/* True, or the network that is meant where an address with a prefix has bits beyond that. */
function isNetwork(text) {
	const [ address, bits ] = text.split('/'), four = validation.parseIPv4(address), size = four ? 8 : 16;
	const words = four || validation.parseIPv6(address) || [];
	const kept = words.map((word, i) => word & -1 << Math.max(0, Math.min(size, size * (i + 1) - bits)));

	return !bits || kept.join() == words.join() || _('The network is %s.').format(kept.map((word) => word.toString(four ? 10 : 16)).join(four ? '.' : ':') + '/' + bits);
}

return baseclass.extend({
	/* The class of LuCI's form that suits an option, by SECTION.OPTION, with or without choices. */
	widget(name, choices) {
		const row = found(name), isMany = Array.isArray(row[0]);

		return choices ? isMany ? 'MultiValue' : 'ListValue' : Array.isArray(row) ? isMany ? 'DynamicList' : 'Value' : 'Flag';
	},

	/* Have a field of the form take what the service takes, and show the default. */
	check(field, name) {
		const row = found(name), [ fallback, datatype, kind ] = L.toArray(row), [ pattern, must ] = options.kinds[kind] || [];

		field.datatype = datatype || null;
		field[Array.isArray(row) ? 'placeholder' : 'default'] = String(fallback || '');
		if (pattern)
			field.validate = (id, value) => pattern.test(value) || !value || must;
		else if (/cidr/.test(datatype))
			field.validate = (id, value) => isNetwork(value);

		return field;
	},

	/* Seconds, on the slowest WAN, for a pace and an option failover_timeout; null for a pace that is
	 * not known. */
	bound(name, timeout) {
		const [ least, most, slack ] = options.paces[name] || [];

		return least ? Math.max(least, Math.min(most, timeout - slack)) : null;
	}
});
