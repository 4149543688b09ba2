'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.words as words';

/* On LuCI's front page: is the internet working, by which way, what if that fails, what to do. */

return baseclass.extend({
	title: _('Backup uplinks'),

	load() {
		return Promise.all([ bus.ask('status').catch((error) => error), bus.ask('pulse').catch(() => ({})) ]);
	},

	render([ status, pulse ]) {
		const isGone = !status.families, isStopped = status.kind == 'stopped';
		const lines = isGone ? [ isStopped ? status.message : '' ]
			: [ words.said(status.summary, 'next', status), [ _('What to do:'), words.said(status.summary, 'advice', status) ].join(' ') ];

		return E('div', [
			words.sheet(),
			pulse.rollback_s > 0 ? words.rollback() : '',
			E('div', { class: 'wgup-now wgup-' + (isGone ? 'bad' : words.kindOf(status)) }, [
				E('strong', [ isStopped ? _('Nothing watches the internet connection.') : isGone ? status.message : words.said(status.summary, 'now', status) ])
			].concat(lines.filter(Boolean).map((each) => E('div', [ each ])), [
				E('a', { href: words.url('overview') }, [ _('Backup uplinks') ])
			]))
		]);
	}
});
