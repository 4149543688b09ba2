'use strict';
'require baseclass';
'require wireguard-uplink.options as options';

/*
 * What the fields of the settings know of the service: what it takes and what it does without them
 * (options.js), and how long a dead WAN may go unnoticed by them.
 */

function found(name) {
	const [ section, option ] = name.split('.');

	return options.sections[section][option] || [];
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

		return field;
	},

	/* Seconds, on the slowest WAN, for a pace and an option failover_timeout; null for a pace that is
	 * not known. */
	bound(name, timeout) {
		const [ least, most, slack ] = options.paces[name] || [];

		return least ? Math.max(least, Math.min(most, timeout - slack)) : null;
	}
});
