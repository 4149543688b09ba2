'use strict';
'require baseclass';
'require ui';
'require wireguard-uplink.words as words';

/*
 * Questions, forms and what comes of them, in one LuCI modal window from the question to the result.
 * What was typed stays until it is accepted. The window is named, keeps the focus, and gives it back
 * to what opened it; Escape closes it unless work is under way.
 */

let opener = null;

function close() {
	const back = opener && document.getElementById(opener.id) || opener;

	opener = null;
	ui.hideModal();
	if (back && back.focus)
		back.focus();
}

function button(label, kind, action) {
	return E('button', { class: 'btn cbi-button ' + kind, type: action ? 'button' : 'submit', click: action || null }, [ label ]);
}

/* Shown while work is under way. */
function wait() {
	return E('p', { class: 'spinning' }, [ _('This takes some seconds…') ]);
}

function paragraph(each) {
	return typeof(each) == 'string' ? E('p', words.quoted(each)) : each;
}

function field(each) {
	const id = 'wgup-field-' + each.name;
	const type = each.type || 'text';
	const input = each.options
		? E('select', { class: 'cbi-input-select', id, name: each.name }, each.options.map(([ value, text ]) => E('option', { value }, [ text ])))
		: E('input', Object.assign({
			id, name: each.name, class: 'cbi-input-' + (type == 'checkbox' ? type : 'text'), type,
			'aria-describedby': each.help ? id + '-help' : null
		}, each.more));

	if (type == 'checkbox')
		input.checked = !!each.value;
	else if (each.value != null)
		input.value = each.value;

	return E('div', { class: 'cbi-value' }, [
		E('label', { class: 'cbi-value-title', for: id }, [ each.label ]),
		E('div', { class: 'cbi-value-field' }, [
			input,
			each.help ? E('div', { class: 'cbi-value-description', id: id + '-help' }, [ each.help ]) : ''
		])
	]);
}

/* What was entered, by name. An emptied field has its `empty` value; without one it is left out. */
function entered(form, fields) {
	const values = {};

	for (const each of fields) {
		const input = form.elements[each.name], text = input.value.trim();

		if (each.type == 'checkbox')
			values[each.name] = input.checked;
		else if (text !== '')
			values[each.name] = each.type == 'number' ? +text : text;
		else if ('empty' in each)
			values[each.name] = each.empty;
	}
	return values;
}

return baseclass.extend({
	/*
	 * Ask, do, and tell what came of it. `sentences` are texts or nodes, `fields` inputs by name;
	 * `work(values, tell)` does it and resolves to the sentences that tell what came of it, none: the
	 * window closes. `tell(text)` shows a step of it. `kind` is the class of the button.
	 */
	ask(asked) {
		const fields = asked.fields || [];
		const news = E('div', { role: 'status' });
		const error = E('div', { role: 'alert' });
		const row = E('div', { class: 'right' });
		const form = E('form', asked.sentences.filter(Boolean).map(paragraph).concat(fields.map(field), [ news, error, row ]));
		const box = this.open(asked.title, [ form ]);
		const busy = (is) => {
			for (const input of form.elements)
				input.disabled = is;
			box.setAttribute('aria-busy', is);
		};

		row.append(button(_('Cancel'), '', close), ' ', button(asked.label, 'wgup-do cbi-button-' + (asked.kind || 'positive important')));
		form.addEventListener('submit', (event) => {
			const values = entered(form, fields);

			event.preventDefault();
			error.replaceChildren();
			busy(true);
			news.replaceChildren(wait());
			asked.work(values, (text) => news.lastChild.before(E('p', [ '✓ ' + text ]))).then((told) => {
				const found = (told || []).filter(Boolean);

				news.lastChild.remove();
				if (!found.length)
					return close();
				for (const node of [ ...form.children ])
					if (node != news && node != row)
						node.remove();
				news.append(...found.map(paragraph));
				row.replaceChildren(button(_('Close'), '', close));
				busy(false);
				row.firstChild.focus();
			}, (problem) => {
				busy(false);
				news.replaceChildren();
				error.append(words.bad(problem.message));
				(fields.length ? form.elements[fields[0].name] : row.lastChild).focus();
			});
		});
		(fields.length ? form.elements[fields[0].name] : row.firstChild).focus();
	},

	/* Show what `work` finds, as nodes or texts. */
	show(title, work) {
		const place = E('div', { role: 'status' }, [ wait() ]);
		const row = E('div', { class: 'right' }, [ button(_('Close'), '', close) ]);

		this.open(title, [ place, row ]);
		row.firstChild.focus();
		work.then((found) => place.replaceChildren(...found.map(paragraph)),
			(error) => place.replaceChildren(words.bad(error.message)));
	},

	open(title, children) {
		opener = opener || document.activeElement;

		const box = ui.showModal([ title ], children, 'wgup-all');

		box.querySelector('h4').id = 'wgup-dialog-title';
		box.setAttribute('aria-labelledby', 'wgup-dialog-title');
		box.onkeydown = function(event) {
			const all = [ ...box.querySelectorAll('input, select, button, summary') ].filter((node) => !node.disabled);
			const edge = event.shiftKey ? all[0] : all[all.length - 1];

			if (event.key == 'Escape' && all.length)
				close();
			if (event.key == 'Tab' && (event.target === edge || !all.length)) {
				event.preventDefault();
				(event.shiftKey ? all[all.length - 1] : all[0] || box).focus();
			}
		};
		return box;
	}
});
