'use strict';
'require baseclass';

/*
 * Numbers over the last minutes, kept in the page and drawn as a small line. A number below 0 is a
 * gap: nothing was known then.
 */

const KEPT = 300;
const LEAST_SHOWN = 60;
const WIDTH = 120;
const HEIGHT = 24;

function svg(name, attributes, children) {
	const node = document.createElementNS('http://www.w3.org/2000/svg', name);

	for (const key in attributes)
		node.setAttribute(key, attributes[key]);
	for (const child of children || [])
		node.appendChild(child);
	return node;
}

return baseclass.extend({
	/* A memory for many plots by name. */
	track: function() {
		const series = {};

		return {
			add: function(name, value) {
				const numbers = series[name] = series[name] || [];

				numbers.push(value);
				if (numbers.length > KEPT)
					numbers.shift();
			},
			of: (name) => series[name] || []
		};
	},

	/* Draw numbers on a scale from 0 to the largest of them, at least `least`; `label` says what
	 * they are to those who can't see the line. */
	draw: function(numbers, least, label) {
		const top = Math.max(least, ...numbers);
		const steps = Math.max(LEAST_SHOWN, numbers.length) - 1;
		const lines = [ [] ];

		numbers.forEach(function(value, i) {
			if (value < 0)
				lines.push([]);
			else
				lines[lines.length - 1].push('%.1f,%.1f'.format(
					WIDTH - (numbers.length - 1 - i) * WIDTH / steps, HEIGHT - 2 - value / top * (HEIGHT - 4)));
		});

		return svg('svg', {
			'class': 'wgup-plot', 'viewBox': '0 0 %d %d'.format(WIDTH, HEIGHT), 'width': WIDTH, 'height': HEIGHT,
			'role': 'img', 'aria-label': label
		}, lines.filter((points) => points.length).map((points) => svg('polyline', {
			'points': (points.length > 1 ? points : points.concat(points)).join(' ')
		})));
	}
});
