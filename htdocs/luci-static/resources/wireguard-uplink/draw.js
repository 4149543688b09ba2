'use strict';
'require baseclass';
'require wireguard-uplink.words as words';

/*
 * Drawings: the way from home to the internet, and numbers over time as a small line. Both say in
 * words what they show.
 */

const ROW = 58, EDGE = 62, MOST = 6;
const WIDTH = 180, HEIGHT = 32;

function svg(name, attributes, children) {
	const node = document.createElementNS('http://www.w3.org/2000/svg', name);

	for (const key in attributes)
		if (attributes[key] != null)
			node.setAttribute(key, attributes[key]);
	node.append(...(children || []).filter(Boolean));
	return node;
}

function label(x, y, text, more) {
	return svg('text', Object.assign({ x, y, 'text-anchor': 'middle' }, more), [ document.createTextNode(text) ]);
}

/* A way between two points, drawn as what it is: used, ready, or broken. */
function way(kind, x1, y1, x2, y2, kbps) {
	const half = (x1 + x2) / 2;
	const d = 'M%d,%d C%d,%d %d,%d %d,%d'.format(x1, y1, half, y1, half, y2, x2, y2);
	const seconds = Math.max(0.5, 3 - Math.log10(Math.max(1, kbps)) / 2);

	return [
		svg('path', { d, class: 'wgup-way wgup-way-' + kind }),
		kind == 'used' && kbps > 20 ? svg('path', { d, class: 'wgup-flow', style: 'animation-duration: %.1fs'.format(seconds) }) : null,
		kind == 'dead' ? label(half, (y1 + y2) / 2 + 6, '✕', { class: 'wgup-cut' }) : null
	];
}

return baseclass.extend({
	/* `paths` are the ways: name, kind (used, ready, idle or dead), note, kbps. */
	picture(all, width) {
		const used = all.filter((path) => path.kind == 'used');
		const rest = all.filter((path) => path.kind != 'used');
		const chosen = new Set(used.concat(rest).slice(0, MOST));
		const paths = all.filter((path) => chosen.has(path));
		const height = Math.max(2, paths.length) * ROW, middle = height / 2;
		const wide = Math.min(210, width - 2 * EDGE - 2 * Math.max(18, width / 10));
		const left = (width - wide) / 2, right = left + wide;
		const cut = (text, size) => text.length > wide / size ? text.slice(0, wide / size - 1) + '…' : text;
		/* The traffic alone where there is no room for more. */
		const brief = (text) => text.length > wide / 6.6 ? text.split(' · ').pop() : text;
		const node = (path, i) => {
			const y = (height - paths.length * ROW) / 2 + (i + 0.5) * ROW;

			return svg('g', { class: 'wgup-path-' + path.kind }, [].concat(
				way(path.kind, EDGE, middle, left, y, path.kbps), way(path.kind, right, y, width - EDGE, middle, path.kbps),
				svg('rect', { x: left, y: y - 22, width: wide, height: 44, rx: 6, class: 'wgup-node' }),
				label(width / 2, y - 4, cut(path.name, 9), { class: 'wgup-name' }), label(width / 2, y + 14, cut(brief(path.note), 6.6))));
		};

		return svg('svg', {
			id: 'wgup-picture', viewBox: '0 0 %d %d'.format(width, height), width, height, role: 'img',
			'aria-label': paths.map((path) => '%s: %s'.format(path.name, path.note)).join('. ')
		}, paths.map(node).concat([
			svg('path', { d: 'M%d,%d l22,-20 l22,20 v24 h-44 z'.format(8, middle - 4), class: 'wgup-node' }),
			label(30, middle + 36, _('Home')),
			svg('circle', { cx: width - 31, cy: middle, r: 22, class: 'wgup-node' }),
			svg('path', { d: 'M%d,%d h44 M%d,%d v44 M%d,%d a10,22 0 0 0 0,44 a10,22 0 0 0 0,-44'.format(width - 53, middle, width - 31, middle - 22, width - 31, middle - 22), class: 'wgup-grid' }),
			label(width - 31, middle + 38, _('Internet'))
		]));
	},

	/* Draw numbers on a scale from 0 to the largest of them, at least `least`; below 0 is a gap. */
	line(numbers, least, text) {
		const top = Math.max(least, ...numbers), steps = Math.max(1, numbers.length - 1);
		const lines = [ [] ];

		numbers.forEach((value, i) => {
			if (value < 0)
				lines.push([]);
			else
				lines[lines.length - 1].push([ Math.round(i * WIDTH / steps), Math.round(HEIGHT - 2 - value / top * (HEIGHT - 4)) ].join());
		});

		return svg('svg', { class: 'wgup-plot', viewBox: '0 0 %d %d'.format(WIDTH, HEIGHT), width: WIDTH, height: HEIGHT, role: 'img', 'aria-label': text },
			lines.filter((points) => points.length).map((points) => svg('polyline', {
				points: (points.length > 1 ? points : points.concat(points)).join(' ')
			})));
	}
});
