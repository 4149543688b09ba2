'use strict';
'require baseclass';
'require wireguard-uplink.words as words';

/*
 * What happened, newest first. A failover is one row from beginning to end, both address families and
 * everything in between together.
 */

const STARTS = [ 'failover', 'switch', 'stranded' ];
const ENDS = [ 'failback', 'recovered' ];
const TOGETHER_MS = 10000;

/* Rows of events, which come newest first: { at, until, events }; `until` is null while it lasts. */
function rows(events) {
	const found = [];
	const open = {};

	for (const event of events.slice().reverse()) {
		const at = Date.parse(event.at), other = Object.values(open)[0];
		const isStart = STARTS.includes(event.kind), isEnd = ENDS.includes(event.kind);
		const last = found[found.length - 1];

		if (isStart || isEnd) {
			const row = open[event.family] || other && isStart && Math.abs(at - other.at) < TOGETHER_MS && other;

			if (row) {
				row.events.push(event);
				if (isStart)
					open[event.family] = row;
				else
					delete open[event.family];
				row.until = Object.values(open).includes(row) ? null : at;
				continue;
			}
			found.push({ at, until: isStart ? null : at, events: [ event ] });
			if (isStart)
				open[event.family] = found[found.length - 1];
		}
		else if (last && last.events[0].kind == event.kind && last.events[0].peer_id == event.peer_id && event.family && at - last.at < TOGETHER_MS) {
			last.events.push(event);
		}
		else {
			found.push({ at, until: at, events: [ event ] });
		}
	}
	return found.reverse();
}

return baseclass.extend({
	rows,

	section(page) {
		const all = rows(page.history.events), shown = all.slice(0, page.shown.history || 5);

		if (!all.length)
			return [ E('p', [ _('Nothing has happened yet.') ]) ];
		return [
			words.table('wgup-history', [ _('When'), _('What'), _('Why') ], shown.map((row) => [
				null, new Date(row.at).toLocaleString(document.documentElement.lang || undefined), this.what(page.status, row), words.said(row.events[0], 'cause', page.status)
			])), page.more('history', shown.length, all.length, 5)
		];
	},

	/* A row as a sentence. */
	what(status, row) {
		const first = row.events[0], moved = row.events.filter((each) => each.to && STARTS.includes(each.kind));
		const without = Math.max(...row.events.map((each) => each.outage_ms));

		if (ENDS.includes(first.kind))
			return _('Back on %s').format(words.path(status, first.to));
		if (!STARTS.includes(first.kind))
			return words.text([ first.kind ], [ first.peer_id || first.to ]) || first.kind;

		const used = {};

		for (const each of row.events)
			used[each.from] = Math.max(used[each.from] || 0, each.used_bytes);

		const bytes = Object.values(used).reduce((sum, each) => sum + Math.max(0, each), 0);
		const names = [ ...new Set(moved.map((each) => words.path(status, each.to))) ];

		return [
			names.length ? _('%s failed, %s took over').format(words.path(status, first.from), names.join(', ')) : _('%s failed, nothing took over').format(words.path(status, first.from)),
			row.until ? _('for %s').format(words.span((row.until - row.at) / 1000)) : _('it lasts'),
			bytes ? _('%s used').format(words.bytes(bytes)) : '',
			without >= 0 ? _('%s s without internet').format(words.number(without / 1000, 1)) : ''
		].filter(Boolean).join(', ');
	}
});
