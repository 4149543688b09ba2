'use strict';
'require baseclass';

/*
 * How long a dead line may go unnoticed, from the options alone: the service's own arithmetic
 * (rpcd_wireguard_uplink/pace.py and config.py, Settings.pace), in seconds, on the slowest line.
 * A test holds both to the same numbers.
 */

const SWITCH = 0.3;
const QUIET_SHARE = 2 / 3;
const PACES = {
	default: { interval: 0.25, confirm: 0.1, losses: 3, silence: 1.7, patience: 2.5, idle: 2.0, cap: 2.0, floor: 0.1 },
	fast: { interval: 0.1, confirm: 0.025, losses: 5, silence: 0.3, patience: 0, idle: 0.1, cap: 2.0, floor: 0.06 }
};

return baseclass.extend({
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
