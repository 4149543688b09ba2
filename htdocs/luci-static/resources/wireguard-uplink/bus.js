'use strict';
'require baseclass';
'require rpc';

/*
 * The service's methods: a reply is a table, a failure an Error whose message is a sentence with the
 * next step. Knows LuCI's rpc and its ways to lose an error; knows nothing of pages.
 */

const OBJECT = 'luci.wireguard-dashboard';

function inWords(error) {
	const text = String(error && error.message || error).split('\n')[0];

	if (text.includes('-32002'))
		return new Error(_('This login may look, but change nothing here. Log in as a user who may.'));
	if (text.includes('-32000'))
		return new Error(_('The service is not running. Start it under System, Startup, or with: /etc/init.d/wireguard-uplink start'));
	if (text.includes('timed out') || text.includes('-32003'))
		return new Error(_('The router did not answer in time. It may still be at work: look again in a moment.'));
	if (text.includes('aborted') || text.includes('HTTP error'))
		return new Error(_('The router can not be reached. This page goes on by itself when it answers.'));
	return new Error(text);
}

return baseclass.extend({
	/* Call a method; `values` by name, those that are undefined are left out. What may take longer
	 * than a moment must not share a request with others: their answers would wait for it. */
	ask: function(method, values, alone) {
		const names = Object.keys(values || {});
		const call = rpc.declare({ object: OBJECT, method: method, params: names, nobatch: alone });

		return call.apply(null, names.map((name) => values[name])).then(function(reply) {
			if (L.isObject(reply)) {
				if (reply.success === false && reply.error)
					throw new Error(reply.error);
				return reply;
			}
			if (reply)
				throw new Error(_('The service refused this: %s.').format(rpc.getStatusText(reply)));
			return {};
		}, function(error) {
			throw inWords(error);
		});
	},

	/* The names of the methods that the service on this router has; none while it isn't running. */
	methods: function() {
		return rpc.list(OBJECT).then((found) => Object.keys(L.isObject(found) && found[OBJECT] || {}), () => []);
	}
});
