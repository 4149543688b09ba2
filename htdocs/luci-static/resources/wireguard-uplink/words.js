'use strict';
'require baseclass';

/*
 * How things are called and numbers are written on all pages. A mark is a word with a coloured edge:
 * the colour repeats what the word says. Everything that comes from the bus becomes a text node.
 */

const STATES = {
	primary: [ 'good', _('own line') ],
	suspect: [ 'warn', _('losing probes') ],
	failed_over: [ 'warn', _('on an uplink') ],
	holding: [ 'warn', _('returning') ],
	stranded: [ 'bad', _('no internet') ],
	disabled: [ 'idle', _('failover off') ],
	up: [ 'good', _('up') ],
	degraded: [ 'warn', _('degraded') ],
	down: [ 'bad', _('down') ],
	connecting: [ 'warn', _('connecting') ],
	unknown: [ 'idle', _('not probed yet') ],
	captive: [ 'warn', _('login needed') ],
	trusted: [ 'good', _('trusted') ],
	unbound: [ 'warn', _('to be confirmed') ],
	untrusted: [ 'idle', _('not trusted') ],
	changed: [ 'bad', _('key changed') ]
};

const EVENTS = {
	failover: _('moved to an uplink'),
	failback: _('back on the own line'),
	'switch': _('moved to another uplink'),
	stranded: _('no way left'),
	recovered: _('a path answers again'),
	not_carrying: _('nothing comes back'),
	carrying: _('answers come back'),
	uplink_added: _('uplink added'),
	uplink_changed: _('uplink changed'),
	uplink_removed: _('uplink removed'),
	trusted: _('trusted'),
	untrusted: _('not trusted'),
	offering: _('line offered'),
	withdrawn: _('offer withdrawn'),
	lease_granted: _('lease given'),
	lease_ended: _('lease ended'),
	drill: _('rehearsal'),
	drill_passed: _('rehearsal passed'),
	drill_failed: _('rehearsal failed')
};

return baseclass.extend({
	mark: function(kind, text) {
		return E('span', { 'class': 'wgup-mark wgup-' + kind }, [ text ]);
	},

	state: function(name) {
		const known = STATES[name] || [ 'idle', name ];
		return this.mark(known[0], known[1]);
	},

	kindOf: function(name) {
		return (STATES[name] || [ 'idle' ])[0];
	},

	event: function(kind) {
		return EVENTS[kind] || kind.replace(/_/g, ' ');
	},

	ms: function(value) {
		return value < 0 ? '-' : value < 10 ? _('%.1f ms').format(value) : _('%d ms').format(value);
	},

	percent: function(value) {
		return _('%d %%').format(Math.round(value));
	},

	bytes: function(value) {
		return '%1000.1mB'.format(value);
	},

	/* A time span in the largest unit that fits; '-' for one that is not known. */
	span: function(seconds) {
		if (seconds < 0)
			return '-';
		if (seconds < 100)
			return _('%d s').format(seconds);
		if (seconds < 6000)
			return _('%d min').format(seconds / 60);
		if (seconds < 172800)
			return _('%d h').format(seconds / 3600);
		return _('%d days').format(seconds / 86400);
	},

	cost: function(offer) {
		const left = offer.quota_left_gb >= 0 ? ', ' + _('%.1f GB left').format(offer.quota_left_gb) : '';
		return (offer.metered ? _('metered') : _('free')) + left;
	},

	/* A path as people call it: the name of a line, or the peer behind an uplink. */
	path: function(status, name) {
		const uplink = L.toArray(status.uplinks).find((each) => each.interface == name);
		const line = L.toArray(status.wans).find((each) => each.device == name);

		return uplink ? uplink.peer_id : line ? line.path : name || _('nothing');
	},

	/* The state that an owner should hear of first. */
	stateOf: function(status) {
		return status.auto_failover || status.state == 'stranded' ? status.state : 'disabled';
	},

	/* What happens to traffic now, as one sentence. */
	now: function(status) {
		const name = this.path(status, status.active_path);

		switch (this.stateOf(status)) {
		case 'primary':
			return _('Traffic uses the own line %s.').format(name);
		case 'suspect':
			return _('The line %s loses probes; traffic still uses it.').format(name);
		case 'failed_over':
			return _('The own line is down: traffic uses the uplink to %s.').format(name);
		case 'holding':
			return status.release_s >= 0
				? _('The own line is back: traffic returns to it in %d s, from the uplink to %s.').format(status.release_s, name)
				: _('The own line is back: traffic returns to it soon, from the uplink to %s.').format(name);
		case 'stranded':
			return _('Nothing is left: neither an own line nor an uplink has internet.');
		case 'disabled':
			return _('Automatic failover is off: traffic stays on %s.').format(name);
		}
		return String(status.state);
	}
});
