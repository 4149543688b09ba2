'use strict';
'require baseclass';
'require rpc';
'require wireguard-uplink.words as words';

/*
 * The service's methods: a reply is a table, a failure an Error whose message is a sentence with the
 * next step. An error has a `kind` where nothing can be asked any more: session, stopped or router.
 */

const OBJECT = 'luci.wireguard-dashboard';
const texts = rpc.declare({ object: OBJECT, method: 'uplink_texts' });
const probe = rpc.declare({ object: 'session', method: 'access' });

function failure(kind, sentence) {
	return Object.assign(new Error(sentence), { kind });
}

/* `isRead`: what was asked for is open to every session. */
function inWords(error, isRead) {
	const text = String(error && error.message || error).split('\n')[0];

	if (error && error.name == 'SessionError' || isRead && text.includes('-32002'))
		return failure('session', _('Your session is over: log in again. If that fails, rpcd is not running.'));
	if (text.includes('-32002'))
		return failure('', words.READS);
	if (text.includes('-32000'))
		return probe().then(() => '', String).then((told) => told.includes('-32000')
			? failure('router', _('The router\'s bus (ubus) does not answer, so nothing can be asked. The service may well be at work.'))
			: failure('stopped', _('The service is not running, so nothing happens when a WAN fails. Start it under System, Startup: wireguard-uplink.')));
	if (text.includes('timed out') || text.includes('-32003'))
		return failure('', _('The router did not answer in time. It may still be at work: look again in a moment.'));
	if (text.includes('aborted') || text.includes('HTTP error'))
		return failure('router', _('The router can not be reached. This page goes on by itself when it answers.'));
	return failure('', text);
}

/* The texts of the service's sentences, asked for once, along with the first call. */
let learned = null;

function learn(ask) {
	learned = learned || ask().then((reply) => words.learn(reply)).catch(() => { learned = null; });
	return learned;
}

return baseclass.extend({
	/* Call uplink_METHOD; `values` by name, those that are undefined are left out. What may take
	 * longer than a moment must not share a request with others: their answers would wait for it. */
	ask(method, values, alone) {
		const names = Object.keys(values || {});
		const call = rpc.declare({ object: OBJECT, method: 'uplink_' + method, params: names, nobatch: alone });

		return Promise.all([ call(...names.map((name) => values[name])), learn(texts) ]).then(([ reply ]) => {
			if (L.isObject(reply)) {
				if (reply.success === false && reply.error)
					throw failure('', words.said(reply, 'error'));
				return reply;
			}
			if (reply)
				throw failure('', _('The service refused this: %s.').format(rpc.getStatusText(reply)));
			return {};
		}, (error) => Promise.resolve(inWords(error, !alone)).then((failed) => { throw failed; }));
	},

	/* What changes or measures something, alone in its request. */
	act(method, values) {
		return this.ask(method, values, true);
	}
});
