'use strict';
'require baseclass';
'require wireguard-uplink.options as options';

/*
 * What the fields of the settings know of the service: what it takes and what it does without them
 * (options.js), and how long a dead WAN may go unnoticed by them: in seconds, on the slowest WAN, by
 * the arithmetic of Settings.detection_bound_s, which a test compares.
 */

const SWITCH = 0.3;
const QUIET_SHARE = 2 / 3;
const PACES = {
	default: { interval: 0.25, confirm: 0.1, losses: 3, silence: 1.7, patience: 2.5, idle: 2.0, cap: 2.0, floor: 0.1 },
	fast: { interval: 0.1, confirm: 0.025, losses: 5, silence: 0.3, patience: 0, idle: 0.1, cap: 2.0, floor: 0.06 }
};

return baseclass.extend({
	/* Have a field of the form take what the service takes, and show the default. */
	check(field, name) {
		const [ section, option ] = name.split('.'), row = options.sections[section][option] || [];
		const [ fallback, datatype, kind ] = L.toArray(row), [ pattern, must ] = options.kinds[kind] || [];

		field.datatype = datatype;
		field[Array.isArray(row) ? 'placeholder' : 'default'] = fallback;
		if (pattern)
			field.validate = (id, value) => pattern.test(value) || !value || must;

		return field;
	},

	/* The bound for a pace and an option failover_timeout; null for a pace that is not known. */
	bound(name, timeout) {
		const pace = PACES[name];

		if (!pace)
			return null;

		const room = timeout - SWITCH;
		const silence = Math.max(pace.silence, Math.min(pace.patience, room - pace.idle));
		const confirm = Math.max((pace.losses - 1) * pace.confirm, silence * QUIET_SHARE);
		const cap = Math.min(pace.cap, Math.max(pace.floor, room - pace.idle - confirm));

		return pace.interval + Math.max(silence, cap + confirm) + SWITCH;
	}
});
