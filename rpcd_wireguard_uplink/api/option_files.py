"""docs/options.md and the checks of the settings page, as the table of options gives them."""

from __future__ import annotations

import json
from collections.abc import Iterator

from ..config.kinds import FLAG
from ..config.option import Fallback, Option, SectionType
from ..config.options import CONFIG, RETIRED, SECTIONS

_PAGE = """\
# Options

<!-- Made from rpcd_wireguard_uplink/config/options.py by `make generate`; don't edit. -->

`/etc/config/{config}` holds everything that the owner decides. `wgctl uplink get [OPTION]`
shows an option or all, `wgctl uplink set OPTION VALUE` sets one (a list to several values),
`wgctl uplink unset OPTION` takes one out: without `uci`, with or without the service. An option of
another section than the main one goes by `SECTION.OPTION`, as in `local.limit_mbps`. Edits by
`uci`, LuCI or an editor do as well; the service follows within 2 seconds.

A bad value stops nothing else. It falls back alone: to the last good value of the option, else to
what the column *if bad* says. `wgctl uplink status` names it, with the command that mends it. The
last good configuration is kept in `/etc/wireguard-uplink/last-good`, for a start over a file that
can't be read.
{sections}
## Options of earlier versions

These have no effect any more; `wgctl uplink status` says so where one is set.

| option | instead |
| --- | --- |
{retired}
"""
_SCRIPT = """\
'use strict';
'require baseclass';

/* Made from rpcd_wireguard_uplink/config/options.py by `make generate`; don't edit. */

const OPTIONS = {
%s
};

return baseclass.extend({
	/* Have a field of the form take what the service takes, and show the default. */
	check: function(field, name) {
		const option = OPTIONS[name];

		if (option.datatype)
			field.datatype = option.datatype;
		field[option.datatype ? 'placeholder' : 'default'] = option.fallback;
		if (option.pattern)
			field.validate = (id, value) => option.pattern.test(value) || !value || option.must;

		return field;
	}
});
"""


def options_page() -> str:
    return _PAGE.format(
        config=CONFIG,
        sections="".join(_section(kind) for kind in SECTIONS.values()),
        retired="\n".join(f"| `{name}` | {instead} |" for name, instead in RETIRED.items()),
    )


def _section(kind: SectionType) -> str:
    name = f" '{kind.name}'" if kind.name else ""
    rows = "\n".join(_row(option) for option in kind.options)
    head = "| option | value | default | if bad | meaning |\n| --- | --- | --- | --- | --- |"
    return f"\n## config {kind.type}{name}\n\n{kind.help}\n\n{head}\n{rows}\n"


def _row(option: Option) -> str:
    unit = f", in {option.unit}" if option.unit else ""
    default = ", ".join(f"`{item}`" for item in option.default_items()) or "none"
    bad = f"`{option.kind.write(option.bad)}`" if not isinstance(option.bad, Fallback) else ""
    bad = bad or ("section not used" if option.bad is Fallback.OFF else "default")
    if option.many and option.bad is Fallback.DEFAULT:
        bad = "left out"
    name = f"list {option.name}" if option.many else option.name
    cells = (f"`{name}`", f"{option.kind.must}{unit}", default, bad, option.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def options_script() -> str:
    """The settings page's options.js: the checks of every option that a form may show."""
    return _SCRIPT % ",\n".join(_checks())


def _checks() -> Iterator[str]:
    for kind in SECTIONS.values():
        for option in kind.options if kind.name else ():
            if option.secret:
                continue
            checks = {"fallback": "" if option.many else " ".join(option.default_items())}
            if option.kind is not FLAG:
                checks["datatype"] = option.kind.datatype or "string"
            words = [f"{name}: {_quoted(text)}" for name, text in checks.items() if text]
            if option.kind.pattern:
                pattern = option.kind.pattern.replace("/", "\\/")
                words.append(f"pattern: /^(?:{pattern})$/, must: _({_quoted(option.kind.must)})")
            yield f"\t'{kind.name}.{option.name}': {{ {', '.join(words)} }}"


def _quoted(text: str) -> str:
    """As a JavaScript literal in single quotes, plain ASCII."""
    inner = json.dumps(text)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inner}'"
