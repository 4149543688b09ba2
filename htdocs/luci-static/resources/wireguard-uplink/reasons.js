'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.words as words';

/*
 * Questions to the service whose answers are sentences: why traffic takes the way that it takes, what
 * would happen if one failed, whether the backups would carry it, what is wrong on this router.
 */

function list(sentences) {
	return E('ul', sentences.map((each) => E('li', words.quoted(each))));
}

return baseclass.extend({
	why(page) {
		dialog.show(_('Why this way?'), bus.ask('explain').then((found) => found.families.map((family) => E('div', [
			E('p', [ E('strong', [ words.said(family, 'sentence') ]) ].concat([ ' ', family.state == 'stranded' ? '' : words.said(family, 'cause', page.status), ' ', words.said(family, 'note', page.status) ])),
			list(family.candidates.map((each) => words.said(each, 'sentence')))
		])).concat(found.others.length ? [ list(found.others.map((each) => '%s: %s'.format(each.peer_id, words.said(each, 'reason')))) ] : [])));
	},

	whatIf(page) {
		const status = page.status;
		const paths = status.wans.map((wan) => [ wan.device, wan.path ]).concat(status.uplinks.map((uplink) => [ uplink.interface, uplink.peer_id ]));

		dialog.ask({
			title: _('What if something failed?'), sentences: [ _('Nothing is touched: the service only says what it would do.') ],
			fields: paths.map(([ device, name ]) => ({ name: device, label: _('%s fails').format(name), type: 'checkbox', value: device == status.active_path })),
			label: _('Ask'),
			work: (given) => bus.ask('simulate', { fail: Object.keys(given).filter((name) => given[name]) }).then((found) =>
				found.families.map((family) => words.said(family, 'sentence', status)))
		});
	},

	rehearse(page) {
		dialog.ask({
			title: _('Rehearse a failover?'),
			sentences: [ _('The service tries every backup with packets of its own: tunnel, addresses, names and packet size. Nobody else\'s traffic is moved.') ],
			label: _('Rehearse'),
			work: () => page.done(bus.act('drill', {}), (found) => found.drills.map((each) => each.ok
				? _('%s would carry the traffic.').format(each.peer_id)
				: _('%s would not: %s').format(each.peer_id, each.steps.filter((step) => !step.ok).map((step) => words.said(step, 'told')).join('; '))))
		});
	},

	check() {
		dialog.show(_('Check this router'), bus.act('check', {}).then((found) => found.findings.length
			? found.findings.map((each) => E('p', { class: 'wgup-problem wgup-' + (each.level == 'wrong' ? 'bad' : 'warn') }, [
				words.said(each, 'what'), each.mend ? E('div', { class: 'wgup-key' }, [ each.mend ]) : ''
			]))
			: [ _('Nothing is wrong.') ]));
	},

	notify() {
		dialog.show(_('Test the notices'), bus.act('notify', {}).then((found) => found.hooks.length
			? [ list(found.hooks.map((each) => '%s: %s'.format(each.name, words.said(each, 'error') || _('ran well')))) ]
			: [ _('There are no notices yet: each executable file in /etc/wireguard-uplink.d is run when something happens.') ]));
	}
});
