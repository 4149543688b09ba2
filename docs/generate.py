"""The files that are made from the tables of methods and options and from the messages' schemas:
rpcd's ACL, docs/methods.md, docs/messages.md, docs/options.md, the checks of the settings page.

`python -m docs.generate` writes them into the checkout it is started in, and a test compares. They
depend on the tables and the schemas alone: two runs give the same bytes.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rpcd_wireguard_uplink.api.methods import METHODS, OBJECT, Access, Method
from rpcd_wireguard_uplink.config.kinds import FLAG
from rpcd_wireguard_uplink.config.option import Fallback, Option, SectionType
from rpcd_wireguard_uplink.config.options import CONFIG, MESH_PORT, RETIRED, SECTIONS, Settings
from rpcd_wireguard_uplink.config.probe_profile import PROFILES
from rpcd_wireguard_uplink.errors import Status
from rpcd_wireguard_uplink.mesh.wire.lease import Identity, LeaseGrant, LeaseRelease, LeaseRequest
from rpcd_wireguard_uplink.mesh.wire.message import LONGEST
from rpcd_wireguard_uplink.mesh.wire.offer import Offer, Withdrawal
from rpcd_wireguard_uplink.mesh.wire.signing import DECIMALS, DOMAIN
from rpcd_wireguard_uplink.reasons import TEMPLATES
from rpcd_wireguard_uplink.schema.json_message import DEEPEST
from rpcd_wireguard_uplink.schema.validation import Schema

from .schemas import LEASE_DENIAL, reply_schema

PACKAGE = "rpcd-wireguard-uplink"
ACL_FILE = "acl.d/rpcd-wireguard-uplink.json"
DOCS_FILE = "docs/methods.md"
MESSAGES_FILE = "docs/messages.md"
OPTIONS_FILE = "docs/options.md"
SCRIPT_FILE = "htdocs/luci-static/resources/wireguard-uplink/options.js"
FORM_FILE = "htdocs/luci-static/resources/view/wireguard-uplink/settings.js"

EXAMPLES_FILE = Path(__file__).parents[1] / "tests/data/replies.json"
"""A reply of each method, which tests hold to its schema and print."""

MESSAGES: Mapping[str, Schema] = {
    **{kind.name: kind.schema for kind in (Offer, Withdrawal, Identity)},
    **{kind.name: kind.schema for kind in (LeaseRequest, LeaseGrant)},
    "lease_denial": LEASE_DENIAL,
    LeaseRelease.name: LeaseRelease.schema,
}


def generated() -> dict[str, str]:
    """Return the text of every generated file by its path in the checkout."""
    return {
        ACL_FILE: acl_text(),
        DOCS_FILE: docs_text(),
        MESSAGES_FILE: messages_text(),
        OPTIONS_FILE: options_page(),
        SCRIPT_FILE: options_script(),
    }


def acl_text() -> str:
    """Return rpcd's ACL file; methods with access "local" are in neither group."""

    def group(access: Access) -> dict[str, Any]:
        names = [method.name for method in METHODS.values() if method.access == access]
        # No other configuration for a web session: `network` would show private keys.
        return {"ubus": {OBJECT: names}, "uci": [CONFIG]}

    acl = {
        PACKAGE: {
            "description": "See and manage WireGuard mesh peers as backup uplinks",
            "read": group("read"),
            "write": group("write"),
        }
    }
    return json.dumps(acl, indent=2) + "\n"


ERRORS: Mapping[Status, tuple[str, str]] = {
    Status.INVALID_ARGUMENT: (
        "an argument is missing, unknown or not what the method takes",
        "invalid_argument bad_config bad_endpoint own_address own_id key_is_ours",
    ),
    Status.METHOD_NOT_FOUND: ("there is no such method", "method_not_found"),
    Status.NOT_FOUND: (
        "no such peer, offer or uplink",
        "not_found no_uplink no_offer unknown_path no_config",
    ),
    Status.PERMISSION_DENIED: (
        "the peer is known, but not trusted; settings in LuCI wait to be confirmed",
        "not_trusted rollback_pending",
    ),
    Status.TIMEOUT: ("something did not answer in time", "timed_out config_busy"),
    Status.NOT_SUPPORTED: (
        "this machine or peer can't do it, or not now",
        "not_supported not_available no_endpoint no_forwarding no_shaping no_usable_uplink "
        "too_many_places wan_down drill_running failed_over not_watched",
    ),
    Status.UNKNOWN_ERROR: (
        "an error inside the service, whose log names the place; the uplink changed meanwhile",
        "internal changed",
    ),
    Status.CONNECTION_FAILED: (
        "the peer can't be reached; nothing answers by the path",
        "unreachable bad_reply path_down bus",
    ),
    Status.SYSTEM_ERROR: (
        "a program that the service runs failed; a file can't be read or written",
        "command_failed config_io unusable_file line_lost tunnel_ahead",
    ),
}
"""By status what it means to a caller, and the codes that come with it."""

_METHODS_PAGE = """\
# Methods

<!-- Made from rpcd_wireguard_uplink/api/methods.py by `make generate`; don't edit. -->

The service is the object `{object}` on the bus. It checks every argument before it does anything:
numbers may come as strings, `null` is the same as not given, `ubus_rpc_session` is
ignored, and any other argument that a method does not list is refused.

| method | access | does |
| --- | --- | --- |
{methods}

Access is one of

- read: any web session that may see the page
- write: a web session that may change the configuration
- local: callers on the bus only, never a web session

## Calling

From a shell, as root:

    ubus call {object} uplink_status
    ubus -S call {object} uplink_remove '{{"peer_id": "nodea"}}'

Scripts should use `-S`: each reply, an error's too, is one line, and the exit status is the one
below. (Without `-S` and without a terminal, `ubus` exits with 256 minus that status: 252 for 4.)
Where there is no `ubus`, as on plain Linux, `python3 -m rpcd_wireguard_uplink.extras.standalone`
takes the same arguments. `wgctl uplink COMMAND --json` prints the same replies with the same
statuses, and exits with 1 after a test or a drill that failed. A program in Python needs nothing
but `ubus`:

```python
import json
import subprocess


def call(method, **arguments):
    words = ["ubus", "-S", "call", "{object}", method, json.dumps(arguments)]
    done = subprocess.run(words, capture_output=True, text=True)
    reply = json.loads(done.stdout or "{{}}")
    if done.returncode:
        raise RuntimeError(reply.get("error", f"{{method}}: status {{done.returncode}}"))
    return reply


for uplink in call("uplink_status")["uplinks"]:
    print(uplink["peer_id"], "is usable" if uplink["usable"] else uplink["reason"])
```

`uplink_add`, `uplink_test` and `uplink_drill` take seconds. Pages call by rpcd's JSON-RPC, with
LuCI's `rpc.declare`. What happens at other times comes as [events](telling.md#what-is-told).

## Errors

An error is the table `{{"success": false, "error": "...", "code": "..."}}` followed by a
status: `error` is a sentence for people, `code` stays the same between releases.

| status | name | means | codes |
| --- | --- | --- | --- |
{statuses}

Where a peer refuses, the code is [the peer's](messages.md#lease_denial), with status 6 or 8.

## Codes of sentences

Sentences that say why are for people, and later releases may word them anew. Programs read the
code: the member NAME has it in NAME`_code`, and the values at %s in NAME`_args`. At ... the
sentence contains another one: the code then names both, such as `down/no_answer`. Only the command
line shows what is in {{}}, only the pages what is in []. An error with a code has
`error_code` and `error_args`. A sentence that is not in this table has the code "".

| code | sentence |
| --- | --- |
{codes}
{sections}"""

_MESSAGES_PAGE = """\
# Messages of the mesh

<!-- Made from the schemas in rpcd_wireguard_uplink/mesh/wire by `make generate`; don't edit. -->

Peers talk in JSON (RFC 8259, UTF-8). Offers and withdrawals travel by the mesh, the bus or
MQTT. Everything else goes by HTTP to TCP port {port}, over the mesh and inside the tunnel. A
message is one object of at most {longest} bytes and {deepest} levels, with each member once.
`null` is the same as not given. A router skips members that are not listed here, so that newer
peers can say more, and refuses a message that breaks the schema in any other way.

An offer or withdrawal that other routers pass on must be signed. The signature is over the line
`{domain}`, its line feed, and all members but `signature` as JSON:
names sorted by code point, no spaces, what is not ASCII as `\\u` and four small hex
digits, numbers rounded to {decimals} decimals and as integers where they are whole.
Whoever passes a message on sends it as it came.

| message | means |
| --- | --- |
{messages}
{sections}"""


def docs_text() -> str:
    rows = METHODS.values()
    examples = json.loads(EXAMPLES_FILE.read_text(encoding="utf-8"))
    return _METHODS_PAGE.format(
        object=OBJECT,
        methods=_lines(f"| [{m.name}](#{m.name}) | {m.access} | {m.doc} |" for m in rows),
        statuses=_lines(
            f"| {status.value} | {status.name} | {means} | `{'`, `'.join(codes.split())}` |"
            for status, (means, codes) in ERRORS.items()
        ),
        codes=_lines(f"| {code} | {text} |" for code, text in TEMPLATES.items()),
        sections=_lines(
            line for method in rows for line in _method_section(method, examples[method.name])
        )
        + "\n",
    )


def _lines(lines: Iterable[str]) -> str:
    return "\n".join(lines)


def _method_section(method: Method, example: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"## {method.name}", "", f"{method.doc} Access: {method.access}.", "")
    if method.command:
        yield from (f"    {usage(method)}", "")
    if method.arguments.properties:
        yield from ("| argument | type | needed | meaning |", "| --- | --- | --- | --- |")
        yield from _rows(method.arguments.tree, needed=True, depth=1)
    else:
        yield "It takes no arguments."
    yield from ("", "| reply | type | meaning |", "| --- | --- | --- |")
    yield from _rows(reply_schema(method).tree, needed=False)
    yield from ("", "For example:", "", "```json", json.dumps(example), "```")


def messages_text() -> str:
    rows = {name: schema.tree for name, schema in MESSAGES.items()}
    return _MESSAGES_PAGE.format(
        port=MESH_PORT,
        longest=LONGEST,
        deepest=DEEPEST,
        domain=DOMAIN.decode().strip(),
        decimals=DECIMALS,
        messages=_lines(f"| [{n}](#{n}) | {tree['description']} |" for n, tree in rows.items()),
        sections=_lines(line for n, tree in rows.items() for line in _message_section(n, tree))
        + "\n",
    )


def _message_section(name: str, tree: Mapping[str, Any]) -> Iterator[str]:
    yield from ("", f"## {name}", "", tree["description"], "")
    yield from ("| member | type | needed | meaning |", "| --- | --- | --- | --- |")
    yield from _rows(tree, needed=True)
    yield from ("", "```json", json.dumps(_published(tree), indent=1), "```")


def _rows(
    tree: Mapping[str, Any], *, needed: bool, prefix: str = "", depth: int = 9
) -> Iterator[str]:
    """A line for each member of a table, and for those inside it."""
    for name, member in tree["properties"].items():
        required = f" {'yes' if name in tree['required'] else 'no'} |" if needed else ""
        meaning = member.get("description", "").replace("|", "\\|")
        yield f"| `{prefix}{name}` | {_type(member)} |{required} {meaning} |"
        inner, mark = (member["items"], "[]") if member["type"] == "array" else (member, "")
        if inner["type"] == "object" and depth > 1:
            yield from _rows(inner, needed=needed, prefix=f"{prefix}{name}{mark}.")


def _published(tree: Any) -> Any:
    """The schema without the annotations that only our own sentences are made of."""
    if isinstance(tree, Mapping):
        return {key: _published(value) for key, value in tree.items() if not key.startswith("x-")}
    return [_published(each) for each in tree] if isinstance(tree, list) else tree


def usage(method: Method) -> str:
    """Return the method's command line, as in "wgctl uplink remove PEER"."""
    words = ["wgctl uplink", method.command]
    for name, schema in method.arguments.properties.items():
        option, value = name.replace("_", "-"), "PEER" if name == "peer_id" else name.upper()
        if name in method.arguments.required:
            more = " ..." if schema["type"] == "array" else ""
            words.append("|".join(schema.get("x-words", ())) or value + more)
        elif schema["type"] == "boolean":
            words.append(f"[--{option} | --no-{option}]")
        else:
            words.append(f"[{value}]" if name == "peer_id" else f"[--{option} {value}]")
    return " ".join(words)


def _type(schema: Mapping[str, Any]) -> str:
    declared = schema["type"]
    if not isinstance(declared, str):
        return " or ".join(declared)
    if declared == "array":
        return f"array of {schema['items']['type']}"
    if schema.get("enum") == [0, 1]:
        return "0 or 1"
    return declared


_OPTIONS_PAGE = """\
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
_OPTIONS_SCRIPT = """\
'use strict';
'require baseclass';

/* Made from rpcd_wireguard_uplink/config/options.py by `make generate`; don't edit. */

return baseclass.extend({
	/* What some options must match, and how that is said. */
	kinds: [
%s
	],

	/* How long a dead WAN may go unnoticed (s): at least, at most, less than failover_timeout. */
	paces: {
%s
	},

	/* By section: the default of a flag, else default ([] for a list), datatype and kind. */
	sections: {
%s
	}
});
"""


def options_page() -> str:
    return _OPTIONS_PAGE.format(
        config=CONFIG,
        sections="".join(_options_section(kind) for kind in SECTIONS.values()),
        retired="\n".join(f"| `{name}` | {instead} |" for name, instead in RETIRED.items()),
    )


def _options_section(kind: SectionType) -> str:
    name = f" '{kind.name}'" if kind.name else ""
    rows = "\n".join(_option_row(option) for option in kind.options)
    head = "| option | value | default | if bad | meaning |\n| --- | --- | --- | --- | --- |"
    return f"\n## config {kind.type}{name}\n\n{kind.help}\n\n{head}\n{rows}\n"


def _option_row(option: Option) -> str:
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
    """The data of the settings page: the checks of every option that its form shows."""
    form = (Path(__file__).parents[1] / FORM_FILE).read_text(encoding="utf-8")
    shown = set(re.findall(r"\[ '(\w+)', _\(", form))
    anonymous = set(re.findall(r"form\.GridSection, '(\w+)'", form))
    sections = [
        replace(kind, options=tuple(o for o in kind.options if o.name in shown))
        for kind in SECTIONS.values()
        if kind.name or kind.type in anonymous
    ]
    kinds = {
        option.kind.pattern: option.kind
        for section in sections
        for option in section.options
        if option.kind.pattern and not option.secret
    }
    rows = (
        f"\t\t[ /^(?:{pattern.replace('/', chr(92) + '/')})$/, _({_quoted(kind.must)}) ]"
        for pattern, kind in kinds.items()
    )
    tables = (
        f"\t\t{each.name or each.type}: {{\n" + ",\n".join(_checks(each, [*kinds])) + "\n\t\t}"
        for each in sections
    )
    paces = (f"\t\t{name}: {json.dumps(_bounds_s(name))}" for name in PROFILES)
    return _OPTIONS_SCRIPT % (",\n".join(rows), ",\n".join(paces), ",\n".join(tables))


def _bounds_s(pace: str) -> list[float]:
    """The least and the most that the detection bound of a pace comes to, and what is between."""
    bounds = {
        timeout_s: Settings(profile_name=pace, failover_timeout_s=timeout_s).detection_bound_s()
        for timeout_s in (each / 10 for each in range(10, 600))
    }
    least, most = min(bounds.values()), max(bounds.values())
    slack = next(t - bound for t, bound in bounds.items() if bound >= (least + most) / 2)
    return [round(each, 6) for each in (least, most, slack)]


def _checks(section: SectionType, patterns: Sequence[str]) -> Iterator[str]:
    """What there is to check of each option; one that may be any text is left out."""
    for option in section.options:
        fallback = _quoted(" ".join(option.default_items())) if not option.many else "[]"
        if option.secret:
            continue
        if option.kind is FLAG:
            yield f"\t\t\t{option.name}: {fallback}"
            continue
        cells = [fallback, _quoted(option.kind.datatype or "")]
        if option.kind.pattern:
            cells.append(str(patterns.index(option.kind.pattern)))
        while cells and cells[-1] == "''":
            cells.pop()
        if cells:
            yield f"\t\t\t{option.name}: [ {', '.join(cells)} ]"


def _quoted(text: str) -> str:
    """As a JavaScript literal in single quotes, plain ASCII."""
    inner = json.dumps(text)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"'{inner}'"


def write_files(root: Path) -> list[str]:
    """Write the generated files below `root`; return the paths of those that changed.

    Raises OSError where a file can't be written.
    """
    changed = []
    for name, text in generated().items():
        path = root / name
        wanted = text.encode()
        if path.exists() and path.read_bytes() == wanted:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(wanted)
        changed.append(name)
    return changed


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files below the given directory (else the current one); return the exit status."""
    arguments = sys.argv[1:] if argv is None else argv
    root = Path(arguments[0] if arguments else ".")
    if not (root / "setup.cfg").is_file():
        sys.stderr.write(f"{root} is no checkout of {PACKAGE}: run this where setup.cfg lies\n")
        return 2
    for name in write_files(root):
        sys.stdout.write(f"wrote {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
