/* Every visible text and coloured edge with its contrast, what WCAG 2.1 AA wants of it, and itself.
 * Ratio and luminance as WCAG defines them; of a gradient the last colour counts. */
(() => {
	const numbers = (colour) => colour.match(/[\d.]+/g).map(Number);
	const linear = (v) => v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4;
	const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
	const over = (top, below) => [0, 1, 2].map((i) => below[i] + (top[i] - below[i]) * (top[3] ?? 1));

	function ground(node) {
		const layers = [];

		for (; node; node = node.parentElement) {
			const style = getComputedStyle(node);
			layers.push(...(style.backgroundImage.match(/rgba?\([^)]*\)/g) || []).slice(-1).map(numbers));
			layers.push(numbers(style.backgroundColor));
		}
		return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
	}

	function ratio(colour, below) {
		const [light, dark] = [over(numbers(colour), below), below].map(luminance).sort((a, b) => b - a);
		return (light + 0.05) / (dark + 0.05);
	}

	const found = [];

	for (const node of document.querySelectorAll('#view *, .modal-overlay-active .modal *')) {
		const style = getComputedStyle(node);

		if (!node.getClientRects().length || node.disabled)
			continue;
		if ([...node.childNodes].some((child) => child.nodeType == Node.TEXT_NODE && child.data.trim()))
			found.push([ratio(style.color, ground(node)), 4.5, node.outerHTML]);
		if (/wgup-(mark|now|problem)/.test(node.getAttribute('class')))
			found.push([ratio(style.borderLeftColor, ground(node.parentElement)), 3, node.outerHTML]);
	}
	return found;
})()
