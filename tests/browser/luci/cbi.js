/* Stands in for LuCI's cbi.js: texts, and how values are put into them. */
'use strict';

function _(text) {
	return (window.TEXTS && window.TEXTS[text.trim().replace(/\s+/g, ' ')]) || text;
}

function N_(number, one, many) {
	return number == 1 ? one : many;
}

String.prototype.format = function() {
	const values = Array.from(arguments);
	const whole = (v) => Math.floor(+v || 0);
	const kinds = {
		s: (v) => v,
		d: (v) => whole(v).toFixed(0),
		u: (v) => Math.max(0, whole(v)).toFixed(0),
		x: (v) => whole(v).toString(16),
		f: (v, precision) => precision == null ? (+v || 0) : (+v || 0).toFixed(precision),
		h: (v) => v == null ? '' : String(v).replace(/[&<>"']/g, (c) => '&#%d;'.format(c.charCodeAt(0))),
		t: function(v) {
			const s = v || 0, day = Math.floor(s / 86400);
			const rest = '%dh %dm %ds'.format(s / 3600 % 24, s / 60 % 60, s % 60);
			return day ? '%dd '.format(day) + rest : rest;
		},
		m: function(v, precision, unit) {
			let value = +v || 0, step = 0;
			for (; value > (unit || 1000) && step < 6; step++)
				value /= unit || 1000;
			return step ? value.toFixed(precision == null ? 2 : precision) + ' ' + ' KMGTPE'[step] + (unit == 1024 ? 'i' : '') : value + ' ';
		}
	};

	return this.replace(/%(%|(?:(\d+)?(?:\.(\d+))?([sduxfhtm])))/g, function(all, kind, width, precision, letter) {
		if (kind == '%')
			return '%';
		if (!values.length)
			return 'undefined';
		return String(kinds[letter](values.shift(), precision, +width || null));
	});
};
