'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.words as words';

/* On LuCI's first page: which way traffic takes, in a few lines. Nothing where there is no service. */

return baseclass.extend({
	title: _('Backup uplinks'),

	load: function() {
		return bus.ask('uplink_status').catch(() => null);
	},

	render: function(status) {
		if (!status || !status.families)
			return null;

		const ready = status.uplinks.filter((each) => each.usable).length;
		const rows = [
			[ _('Now'), words.state(words.stateOf(status)), ' ', words.now(status) ],
			[ _('For'), words.span(status.since_s), status.cause ? ': ' + status.cause : '' ],
			[ _('Ready uplinks'), _('%d of %d').format(ready, status.uplink_count) ]
		];

		if (status.problems.length)
			rows.push([ _('To mend'), status.problems.join(' ') ]);

		return E('div', {}, [
			E('link', { 'rel': 'stylesheet', 'href': L.resource('wireguard-uplink/uplink.css') }),
			E('table', { 'class': 'table wgup' }, rows.map((row) => E('tr', { 'class': 'tr' }, [
				E('td', { 'class': 'td left', 'width': '33%' }, [ row[0] ]),
				E('td', { 'class': 'td left' }, row.slice(1))
			])))
		]);
	}
});
