'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';

/*
 * Questions to the service whose answers are sentences: why traffic takes the path that it takes,
 * what would happen if a path died, whether the uplinks would carry it. The service finds the words.
 */

const FAMILY = { ipv4: 'IPv4', ipv6: 'IPv6' };

function list(sentences) {
	return E('ul', {}, sentences.map((each) => E('li', {}, [ each ])));
}

return baseclass.extend({
	why: function() {
		return bus.ask('uplink_explain').then((found) => dialog.show(_('Why this path?'), found.families.map((family) => E('div', {}, [
			E('h5', {}, [ FAMILY[family.family] || family.family ]),
			E('p', {}, [ family.sentence ]),
			list(family.candidates.map((each) => '%d. %s: %s'.format(each.place, each.name, each.sentence)))
		])).concat(found.others.length ? [ list(found.others.map((each) => '%s: %s'.format(each.peer_id, each.reason))) ] : [])),
		(error) => dialog.show(_('That did not work'), [ E('p', {}, [ error.message ]) ]));
	},

	whatIf: function(page) {
		const status = page.status;
		const paths = status.wans.map((line) => [ line.device, line.path ]).concat(status.uplinks.map((uplink) => [ uplink.interface, uplink.peer_id ]));

		dialog.form(_('What if a path died?'), [ _('Nothing is touched: the service only says what it would do.') ],
			paths.map(([ device, name ]) => ({ name: device, label: _('%s is dead').format(name), type: 'checkbox', value: device == status.active_path })),
			_('Tell'), (given) => page.act(_('Thinking it through…'), bus.ask('uplink_simulate', {
				fail: Object.keys(given).filter((name) => given[name])
			}), (found) => found.families.map((family) => '%s: %s'.format(FAMILY[family.family] || family.family, family.sentence))));
	},

	rehearse: function(page) {
		dialog.confirm(_('Rehearse a failover?'), [
			_('The service sends its own probes through every uplink: tunnel, both address families, names and packet size. Nobody else\'s traffic is moved.')
		], _('Rehearse'), () => page.act(_('Rehearsing, this takes some seconds…'), bus.ask('uplink_drill', {}, true), (found) =>
			[ found.message ].concat(found.drills.map((each) => each.ok
				? _('%s would carry the traffic.').format(each.peer_id)
				: _('%s would not: %s').format(each.peer_id, each.note)))));
	}
});
