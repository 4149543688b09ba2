'use strict';
'require baseclass';
'require wireguard-uplink.bus as bus';
'require wireguard-uplink.cards as cards';
'require wireguard-uplink.dialog as dialog';
'require wireguard-uplink.words as words';

/*
 * Dialogs about a peer: from its offer to a tested backup, trust and its end. Loaded when the first of
 * them is opened. A peer is what peers.js finds: id, trust, offer.
 */

function keys(trust) {
	return E('details', [
		E('summary', [ _('Compare its key with its owner') ]),
		E('p', { class: 'wgup-key' }, [ words.dotted(trust.mesh_key, trust.identity, trust.fingerprint) || '–' ])
	]);
}

const made = (id) => _('The tunnel to %s is made.').format(id);
const changed = (trust) => trust.state == 'changed' ? _('Its key is not the one that was confirmed before. Ask its owner why, before you go on.') : '';

return baseclass.extend({
	/* Trust, add and test, in one window. */
	add(page, peer) {
		const id = peer.id, trust = peer.trust, isNew = trust.state != 'trusted';

		dialog.ask({
			title: _('Add %s as backup').format(id),
			sentences: [
				isNew ? _('You say with this that you know whose router it is: your traffic may leave by its internet, and its owner could see where it goes.') : '',
				changed(trust),
				_('A tunnel is made and tested. It carries traffic only when your WAN fails.'),
				isNew ? keys(trust) : ''
			],
			label: isNew ? _('Trust, add and test') : _('Add and test'),
			work: (given, tell) => page.done((isNew ? this.accept(trust) : Promise.resolve()).then(() => {
				if (isNew)
					tell(_('%s is trusted.').format(id));
				return this.until(id, 20);
			}).then(() => bus.act('add', { peer_id: id })).then((added) => {
				tell(made(id));
				return bus.act('test', { peer_id: id }).then((tested) => [ cards.found(tested)[0], words.said(added, 'note') ]);
			}), (told) => told)
		});
	},

	/* An offer of a peer that was just trusted is judged anew, or comes again. */
	until(id, tries) {
		return bus.ask('list').then((list) => {
			const offer = list.offers.find((each) => each.peer_id == id);

			if (!tries || offer && offer.usable)
				return;
			return new Promise((done) => window.setTimeout(done, 500)).then(() => this.until(id, tries - 1));
		});
	},

	accept: (trust) => bus.act('trust_accept', { peer_id: trust.peer_id, fingerprint: trust.fingerprint || undefined }),

	trust(page, peer) {
		const id = peer.id, trust = peer.trust;

		dialog.ask({
			title: _('Trust %s?').format(id),
			sentences: [
				changed(trust),
				_('Your traffic may then leave by its internet, and it may ask for yours where you offer it.'), keys(trust)
			],
			label: _('Trust'), work: () => page.done(this.accept(trust))
		});
	},

	revoke(page, peer) {
		const id = peer.id;

		dialog.ask({
			title: _('Trust %s no longer?').format(id),
			sentences: [ _('Its offers are ignored, backups to it that were added by themselves go, and it can not use your internet any more.') ],
			label: _('Trust no longer'), kind: 'negative',
			work: () => page.done(bus.act('trust_revoke', { peer_id: id }))
		});
	},

	byHand(page) {
		dialog.ask({
			title: _('Add a backup by hand'),
			sentences: [ _('For a peer whose offer is not heard. Its owner has to admit the public key that is shown afterwards.') ],
			fields: [
				{ name: 'peer_id', label: _('Peer'), more: { required: '', maxlength: 64 } },
				{ name: 'endpoint', label: _('Address and port'), more: { required: '', placeholder: 'peer.example.com:51820' } },
				{ name: 'public_key', label: _('Public key'), more: { required: '' } },
				{ name: 'address', label: _('Own tunnel address'), help: _('Left out, one is derived from the key.') }
			],
			label: _('Add'),
			work: (given) => page.done(bus.act('add', given), (reply) => [
				made(reply.peer_id), words.said(reply, 'note'), _('The public key of this router for it: %s').format(reply.public_key)
			])
		});
	}
});
