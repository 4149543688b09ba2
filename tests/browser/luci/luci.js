/* Stands in for LuCI's runtime where no real one is there: as much of it as the pages use, with the
 * same traps. A bare string given to E() or dom.append() is HTML; a reply's status is lost where
 * there is data; a failed expectation looks like an empty answer; a handler's rejection is silent.
 * `form`, `uci` and `network` are not here. test_runtime.py holds both to the same table. */
'use strict';

(function() {
	const env = {}, classes = {}, pending = [];
	let requests = 0;

	/* classes */

	function Base() {}

	Base.extend = function(members) {
		const Parent = this;
		const Made = function() {
			if (this.__init__)
				this.__init__.apply(this, arguments);
		};
		Made.prototype = Object.assign(Object.create(Parent.prototype), members);
		Made.extend = Base.extend;
		return Made;
	};

	function load(name, from) {
		const chain = [ name ].concat(from || []);

		if ((from || []).includes(name))
			throw new Error('DependencyError: ' + chain.join(' <- '));
		if (classes[name])
			return Promise.resolve(classes[name]);

		const url = env.base_url + '/' + name.replace(/\./g, '/') + '.js';

		classes[name] = fetch(url).then(function(reply) {
			if (!reply.ok)
				throw new Error('HTTP error ' + reply.status + ' while loading ' + url);
			return reply.text();
		}).then(function(source) {
			const wanted = [], names = [];
			const head = /^(?:\s|\/\*[^]*?\*\/|\/\/.*\n)*(?:'use strict'|'require\s+(\S+?)(?:\s+as\s+(\w+))?');/;

			for (let rest = source, found; (found = head.exec(rest)) != null; rest = rest.slice(found[0].length))
				if (found[1]) {
					wanted.push(load(found[1], chain));
					names.push(found[2] || found[1].replace(/\W/g, '_'));
				}

			return Promise.all(wanted).then(function(instances) {
				const factory = new Function('window', 'document', 'L', ...names, source + '\n//# sourceURL=' + url);
				const Made = factory(window, document, L, ...instances);

				if (typeof(Made) != 'function' || !(Made.prototype instanceof Base))
					throw new TypeError(name + ' returns no class');
				return (classes[name] = new Made());
			});
		});

		return classes[name];
	}

	/* document */

	const isElement = (value) => value != null && typeof(value) == 'object' && 'nodeType' in value;

	const dom = {
		elem: isElement,
		append: function(node, children) {
			if (Array.isArray(children)) {
				for (const child of children)
					if (isElement(child))
						node.appendChild(child);
					else if (child != null)
						node.appendChild(document.createTextNode(String(child)));
			}
			else if (typeof(children) == 'function') {
				return dom.append(node, children(node));
			}
			else if (isElement(children)) {
				node.appendChild(children);
			}
			else if (children != null) {
				node.innerHTML = String(children); /* as LuCI does */
			}
			return node.lastChild;
		},
		content: function(node, children) {
			node.replaceChildren();
			return dom.append(node, children);
		},
		create: function(name, attributes, children) {
			if (attributes == null || typeof(attributes) != 'object' || Array.isArray(attributes) || isElement(attributes)) {
				children = children === undefined ? attributes : children;
				attributes = {};
			}

			const node = Array.isArray(name) ? document.createDocumentFragment() : document.createElement(name);

			if (Array.isArray(name))
				dom.append(node, name);
			for (const key in attributes)
				if (typeof(attributes[key]) == 'function')
					node.addEventListener(key, attributes[key]);
				else if (attributes[key] != null)
					node.setAttribute(key, typeof(attributes[key]) == 'object' ? JSON.stringify(attributes[key]) : attributes[key]);
			dom.append(node, children);
			return node;
		}
	};

	window.E = dom.create;

	/* calls */

	function post(messages) {
		const request = new XMLHttpRequest();

		return new Promise(function(resolve, reject) {
			request.open('POST', rpc.getBaseURL());
			request.timeout = (env.rpctimeout || 20) * 1000;
			request.setRequestHeader('Content-Type', 'application/json');
			request.ontimeout = () => reject(new Error('XHR request timed out'));
			request.onerror = () => reject(new Error('XHR request aborted by browser'));
			request.onload = function() {
				if (request.status != 200)
					return reject(new Error('RPC call failed with HTTP error ' + request.status));
				try { resolve(JSON.parse(request.responseText)); } catch (error) { reject(error); }
			};
			request.send(JSON.stringify(messages));
		});
	}

	function flush() {
		const batch = pending.splice(0);

		if (!batch.length)
			return;
		post(batch.map((each) => each.message)).then(
			(replies) => batch.forEach((each, i) => each.resolve(replies[i])),
			(error) => batch.forEach((each) => each.reject(error)));
	}

	function send(message, nobatch) {
		message = Object.assign({ jsonrpc: '2.0', id: ++requests }, message);
		if (nobatch)
			return post(message);
		return new Promise(function(resolve, reject) {
			pending.push({ message, resolve, reject });
			requestAnimationFrame(flush);
		});
	}

	/* What luci.js does where access is denied: is it so because the session is over? */
	function denied(reply, options) {
		if (!reply || !reply.error || reply.error.code != -32002 || options.object == 'session')
			return reply;
		return rpc.declare({ object: 'session', method: 'access' })().then(() => reply, function() {
			poll.stop();
			throw Object.assign(new Error('Login session is expired'), { name: 'SessionError' });
		});
	}

	const rpc = {
		getBaseURL: () => env.ubuspath,
		getStatusText: function(status) {
			return [ 'Command OK', 'Invalid command', 'Invalid argument', 'Method not found', 'Resource not found',
				'No data received', 'Permission denied', 'Request timeout', 'Not supported', 'Unspecified error',
				'Connection lost' ][status] || 'Unknown error code';
		},
		list: function() {
			return send({ method: 'list', params: Array.from(arguments) }).then((reply) => reply.result);
		},
		declare: function(options) {
			return function() {
				const values = Array.from(arguments), params = {};

				(options.params || []).forEach((name, i) => { params[name] = values[i]; });

				return send({ method: 'call', params: [ env.sessionid, options.object, options.method, params ] }, options.nobatch).then((reply) => denied(reply, options)).then(function(reply) {
					const what = options.object + '/' + options.method;

					if (reply == null || reply.jsonrpc != '2.0')
						throw new Error('RPC call to ' + what + ' returned invalid message frame');
					if (reply.error)
						throw new Error('RPC call to ' + what + ' failed with error ' + reply.error.code + ': ' + reply.error.message);

					const result = reply.result || [];

					if (options.reject && result[0] !== 0)
						throw new Error('RPC call to ' + what + ' failed with ubus code ' + result[0] + ': ' + rpc.getStatusText(result[0]));

					let value = result.length > 1 ? result[1] : result[0];

					for (const key in options.expect || {}) {
						const type = (v) => Object.prototype.toString.call(v);

						if (value != null && key != '')
							value = value[key];
						if (value == null || type(value) != type(options.expect[key]))
							value = options.expect[key];
						break;
					}
					return options.filter ? options.filter(value, params) : value;
				});
			};
		}
	};

	/* polling */

	const poll = {
		queue: [],
		add: function(fn, interval) {
			if (poll.queue.some((entry) => entry.fn === fn))
				return false;
			poll.queue.push({ fn, every: interval || env.pollinterval, free: true });
			if (poll.tick != null && !poll.active())
				poll.start();
			return true;
		},
		remove: function(fn) {
			const before = poll.queue.length;

			poll.queue = poll.queue.filter((entry) => entry.fn !== fn);
			if (!poll.queue.length)
				poll.stop();
			return poll.queue.length != before;
		},
		active: () => poll.timer != null,
		start: function() {
			poll.tick = 0;
			if (poll.active() || !poll.queue.length)
				return false;
			poll.timer = setInterval(poll.step, 1000);
			poll.step();
			return true;
		},
		stop: function() {
			clearInterval(poll.timer);
			delete poll.timer;
			return true;
		},
		step: function() {
			for (const entry of poll.queue)
				if (poll.tick % entry.every == 0 && entry.free) {
					entry.free = false;
					Promise.resolve(entry.fn()).finally(() => { entry.free = true; });
				}
			poll.tick++;
		}
	};

	/* widgets */

	const box = dom.create('div', { 'class': 'modal', 'role': 'dialog', 'aria-modal': 'true' });
	const overlay = dom.create('div', { 'id': 'modal_overlay', 'tabindex': -1 }, [ box ]);

	const ui = {
		showModal: function(title, children) {
			box.setAttribute('class', 'modal');
			for (const name of Array.from(arguments).slice(2))
				box.classList.add(name);
			dom.content(box, dom.create('h4', {}, title));
			dom.append(box, children);
			document.body.classList.add('modal-overlay-active');
			overlay.focus();
			return box;
		},
		hideModal: function() {
			document.body.classList.remove('modal-overlay-active');
			overlay.blur();
		},
		addNotification: function(title, children) {
			const text = dom.create('div', {});
			const note = dom.create('div', { 'class': 'alert-message' }, [
				text,
				dom.create('button', { 'class': 'btn', 'click': () => note.remove() }, [ _('Dismiss') ])
			]);

			for (const name of Array.from(arguments).slice(2))
				note.classList.add(name);
			if (title != null)
				dom.append(text, dom.create('h4', {}, title));
			dom.append(text, children);
			document.querySelector('#maincontent').prepend(note);
			return note;
		},
		createHandlerFn: function(self, fn) {
			const bound = Array.from(arguments).slice(2);

			return function(event) {
				const button = event.currentTarget;

				button.classList.add('spinning');
				button.disabled = true;
				button.blur();
				Promise.resolve((typeof(fn) == 'string' ? self[fn] : fn).apply(self, bound.concat([ event ]))).finally(function() {
					button.classList.remove('spinning');
					button.disabled = false;
				});
			};
		},
		instantiateView: (path) => load('view.' + path.replace(/\//g, '.')).catch(L_error)
	};

	function L_error(error) {
		ui.addNotification(error.name, dom.create('pre', {}, [ error.message ]), 'danger');
		throw error;
	}

	const view = Base.extend({
		__init__: function() {
			const place = document.getElementById('view');

			return Promise.resolve(this.load()).then(this.render.bind(this)).then(function(nodes) {
				dom.content(place, nodes);
				dom.append(place, this.addFooter());
			}.bind(this)).catch(L_error);
		},
		load: function() {},
		render: function() {},
		handleSave: function() {},
		handleSaveApply: function() {},
		handleReset: function() {},
		addFooter: function() {
			const buttons = [ [ 'handleSaveApply', _('Save & Apply') ], [ 'handleSave', _('Save') ], [ 'handleReset', _('Reset') ] ];
			const shown = buttons.filter((each) => this[each[0]]);

			return shown.length ? dom.create('div', { 'class': 'cbi-page-actions' }, shown.map((each) =>
				dom.create('button', { 'class': 'cbi-button', 'click': ui.createHandlerFn(this, each[0]) }, [ each[1] ]))) : null;
		}
	});

	/* L */

	function path(prefix, parts) {
		return [ prefix ].concat(Array.from(parts)).join('/');
	}

	window.LuCI = function(given) {
		const own = document.querySelector('script[src*="/luci.js"]').getAttribute('src');

		Object.assign(env, given, { base_url: own.replace(/\/luci\.js.*$/, '') });
		document.addEventListener('DOMContentLoaded', function() {
			document.body.appendChild(overlay);
			poll.start();
			document.dispatchEvent(new CustomEvent('luci-loaded'));
		});
	};

	window.LuCI.prototype = {
		env: env,
		require: load,
		error: L_error,
		bind: (fn, self, ...more) => fn.bind(self, ...more),
		resource: function() { return path(env.resource, arguments); },
		url: function() { return path(env.scriptname, arguments); },
		isObject: (value) => value != null && typeof(value) == 'object',
		toArray: (value) => value == null ? [] : Array.isArray(value) ? value : typeof(value) == 'object' ? [ value ] : String(value).split(/\s+/).filter(Boolean),
		resolveDefault: (value, otherwise) => Promise.resolve(value).catch(() => otherwise),
		hasViewPermission: () => env.nodespec && env.nodespec.satisfied ? !env.nodespec.readonly : null
	};

	/* What validation.js has of addresses: their numbers, or null. */
	const validation = {
		parseIPv4: (text) => /^\d+(\.\d+){3}$/.test(text) ? text.split('.').map(Number) : null,
		parseIPv6(text) {
			const [ head, tail ] = text.split('::').map((part) => part ? part.split(':') : []);
			const words = tail ? [ ...head, ...Array(8 - head.length - tail.length).fill('0'), ...tail ] : head;

			return words.length == 8 ? words.map((word) => parseInt(word, 16)) : null;
		}
	};

	Object.assign(classes, { baseclass: Base, view, dom, rpc, poll, ui, validation });
})();
