'use strict';
'require baseclass';

/*
 * The service's sentences in the reader's language. Its English template is the sentence's code, what
 * stands at %s its arguments, which are sentences themselves. What is not known stays as it came.
 */

const KNOWN = [
	[ '%s is not trusted: %s', _('%s is not trusted yet') ],
	[ '%s was not seen on the mesh yet: %s', _('%s was not seen on the mesh yet') ],
	[ '%s is approved, but its mesh key is not confirmed: %s', _('%s is approved; confirm its key here') ],
	[ 'the tunnel has no address of this family', _('its tunnel has no address of this kind') ],
	[ 'it is down: %s', _('it is down: %s') ],
	[ 'nothing has answered through it yet', _('nothing has answered through it yet') ],
	[ 'it travels over the WAN that failed and does not answer now', _('it needs the WAN that failed') ],
	[ 'it is not watched yet', _('it is not tested yet') ],
	[ 'the service is disabled in its configuration', _('the service is disabled in the settings') ],
	[ 'the uplink is disabled in its section', _('it is disabled in the configuration') ],
	[ 'automatic failover is off', _('automatic failover is off') ],
	[ 'disabled in the configuration', _('the service is disabled in the settings') ],
	[ 'no answer to %s probes in %s s', _('no answer to %s probes in %s s') ],
	[ '%s of %s probes lost', _('%s of %s probes lost') ],
	[ '%s of %s targets do not answer: %s', _('%s of %s addresses do not answer') ],
	[ '%s, no answer yet', _('%s, no answer yet') ],
	[ '%s; no other path answers', _('%s; nothing else answers') ],
	[ 'neither %s nor any backup answers', _('neither %s nor any backup answers') ],
	[ '%s answers for %s s', _('%s works again for %s s') ],
	[ '%s answers again', _('%s answers again') ],
	[ '%s answers, %s does not', _('%s answers, %s does not') ],
	[ 'the WAN was lost again: %s', _('the WAN was lost again: %s') ],
	[ '%s is gone', _('%s is gone') ],
	[ 'no WAN answers', _('no WAN answers') ],
	[ 'there is no default route', _('no WAN is connected') ],
	[ 'This uplink travels over %s and can\'t help when that line is dead.', _('This backup needs %s and can not help when that is dead.') ],
	[ '%s leaves by the same WAN as this router, and is tried last.', _('%s uses the same internet connection as this router, and is tried last.') ],
	[ '%s can\'t be used now: %s', _('%s can not be used now: %s') ],
	[ 'settings that were applied in LuCI wait to be confirmed, and %s may be put back: confirm them, or try again in two minutes', _('Settings that were just applied wait to be confirmed and may be put back: confirm them, or try again in two minutes.') ],
	[ 'all went well', _('all went well') ],
	[ '%s: %s', '%s: %s' ]
].map(([ template, text ]) => [
	new RegExp('^' + template.replace(/[.*+?^$()|[\]\\]/g, '\\$&').replace(/%s/g, '(.+?)') + '$'), text
]);

return baseclass.extend({
	translate: function(sentence) {
		for (const [ pattern, text ] of KNOWN) {
			const found = pattern.exec(sentence);

			if (found && !(text == '%s: %s' && / /.test(found[1])))
				return text.format.apply(text, found.slice(1).map((each) => this.translate(each)));
		}
		return sentence || '';
	}
});
