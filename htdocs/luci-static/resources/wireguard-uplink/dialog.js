'use strict';
'require baseclass';
'require ui';

/*
 * Questions, forms and the progress of what takes longer, in LuCI's modal window. What opened a
 * window gets the focus back; Escape closes a question; the tabulator stays inside.
 */

let opener = null;

function open(title, children) {
	opener = opener || document.activeElement;

	const box = ui.showModal([ title ], children);
	const first = box.querySelector('input, select, button');

	box.onkeydown = function(event) {
		const all = Array.from(box.querySelectorAll('input, select, button')).filter((node) => !node.disabled);
		const edge = event.shiftKey ? all[0] : all[all.length - 1];

		if (event.key == 'Escape' && all.length)
			close();
		if (event.key == 'Tab' && (event.target === edge || !all.length)) {
			event.preventDefault();
			(event.shiftKey ? all[all.length - 1] : all[0] || box).focus();
		}
	};
	if (first)
		first.focus();
}

function close() {
	const back = opener && document.getElementById(opener.id) || opener;

	opener = null;
	ui.hideModal();
	if (back && back.focus)
		back.focus();
}

function buttons(label, action) {
	return E('div', { 'class': 'right' }, [
		E('button', { 'class': 'btn cbi-button', 'type': 'button', 'click': close }, [ _('Cancel') ]), ' ',
		E('button', { 'class': 'btn cbi-button wgup-do', 'type': 'submit', 'click': action || null }, [ label ])
	]);
}

function field(each) {
	const id = 'wgup-field-' + each.name;
	const input = E('input', Object.assign({
		'id': id, 'name': each.name, 'class': each.type == 'checkbox' ? 'cbi-input-checkbox' : 'cbi-input-text', 'type': each.type || 'text'
	}, each.more));

	if (each.type == 'checkbox')
		input.checked = !!each.value;
	else if (each.value != null)
		input.value = each.value;

	return E('div', { 'class': 'cbi-value' }, [
		E('label', { 'class': 'cbi-value-title', 'for': id }, [ each.label ]),
		E('div', { 'class': 'cbi-value-field' }, [
			input,
			each.help ? E('div', { 'class': 'cbi-value-description' }, [ each.help ]) : ''
		])
	]);
}

/* What was entered: text as it is, numbers and marks as such; what was left empty is left out. */
function entered(form) {
	const values = {};

	for (const input of form.elements)
		if (input.name && input.type == 'checkbox')
			values[input.name] = input.checked;
		else if (input.name && input.value.trim() !== '')
			values[input.name] = input.type == 'number' ? +input.value : input.value.trim();
	return values;
}

return baseclass.extend({
	/* Ask before something is done; `sentences` say what is at stake. */
	confirm: function(title, sentences, label, action) {
		open(title, sentences.filter(Boolean).map((each) => E('p', {}, [ each ])).concat([
			buttons(label, function() {
				close();
				action();
			})
		]));
	},

	/* Ask for values; `action` gets them by name. */
	form: function(title, sentences, fields, label, action) {
		open(title, [
			E('form', { 'submit': function(event) {
				const values = entered(event.target);

				event.preventDefault();
				close();
				action(values);
			} }, sentences.map((each) => E('p', {}, [ each ])).concat(fields.map(field), [ buttons(label) ]))
		]);
	},

	/* Show something to read. */
	show: function(title, children) {
		open(title, children.concat([
			E('div', { 'class': 'right' }, [
				E('button', { 'class': 'btn cbi-button', 'click': close }, [ _('Close') ])
			])
		]));
	},

	/* Show that something is under way until it ends, then what came of it: `done` makes sentences
	 * of the reply (none: the window just closes), a failure tells its own. Never rejects. */
	progress: function(sentence, work, done) {
		const told = (title, sentences) => this.show(title, sentences.map((each) => E('p', { 'role': 'alert' }, [ each ])));

		open(_('One moment'), [ E('p', { 'class': 'spinning', 'role': 'status' }, [ sentence ]) ]);

		return work.then(function(reply) {
			const sentences = done(reply).filter(Boolean);
			return sentences.length ? told(_('Done'), sentences) : close();
		}, (error) => told(_('That did not work'), [ error.message ]));
	}
});
