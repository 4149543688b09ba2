'use strict';
'require baseclass';

/*
 * Brings what is shown to what should be shown, by as few changes as possible: what has the focus
 * keeps it, a button that is just being pressed stays the same button. Elements with an id are known
 * again by it; the handlers of an element that stays are those of its first drawing, so they must
 * depend on nothing but what its id says. What was unfolded stays so. `same` stands for an element
 * that is to stay as it is.
 */

function alike(one, other) {
	return one.nodeType == other.nodeType && one.nodeName == other.nodeName && (one.id || '') == (other.id || '');
}

function merge(shown, wanted) {
	if (shown.nodeType != Node.ELEMENT_NODE) {
		if (shown.data != wanted.data)
			shown.data = wanted.data;
		return;
	}

	if (wanted.hasAttribute('data-same'))
		return;
	for (const name of shown.getAttributeNames())
		if (!wanted.hasAttribute(name) && name != 'open')
			shown.removeAttribute(name);
	for (const name of wanted.getAttributeNames())
		if (shown.getAttribute(name) != wanted.getAttribute(name))
			shown.setAttribute(name, wanted.getAttribute(name));

	mergeChildren(shown, wanted);
}

function mergeChildren(shown, wanted) {
	let at = shown.firstChild;

	for (const child of [ ...wanted.childNodes ]) {
		const own = child.id && !(at && at.id == child.id) ? [ ...shown.childNodes ].find((node) => node.id == child.id) : null;

		if (own) {
			shown.insertBefore(own, at);
			merge(own, child);
		}
		else if (at && alike(at, child)) {
			const next = at.nextSibling;
			merge(at, child);
			at = next;
		}
		else {
			shown.insertBefore(child, at);
		}
	}

	while (at) {
		const next = at.nextSibling;
		at.remove();
		at = next;
	}
}

return baseclass.extend({
	same: (name, id) => E(name, { id, 'data-same': '' }),

	/* Make `place` hold these nodes. */
	into(place, nodes) {
		mergeChildren(place, E('div', nodes));
	}
});
