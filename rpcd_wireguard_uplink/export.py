"""The files that are made from the method table: rpcd's ACL and docs/methods.md.

Owns their layout; `python -m rpcd_wireguard_uplink.export` writes them into the checkout it is
started in, and a test compares. Knows nothing of how methods work. The output depends on the table
alone, so that two runs give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import Status
from .methods import METHODS, OBJECT, Access, Method

PACKAGE = "rpcd-wireguard-uplink"
# The only configuration that a web session may touch: `network` would show private keys.
CONFIG = "wireguard-uplink"
ACL_FILE = "acl.d/rpcd-wireguard-uplink.json"
DOCS_FILE = "docs/methods.md"

_ACCESS_WORDS: Mapping[Access, str] = {
    "read": "read: any web session that may see the page",
    "write": "write: a web session that may change the configuration",
    "local": "local: callers on the bus only, never a web session",
}
_STATUS_WORDS = {
    Status.INVALID_ARGUMENT: "an argument is missing, unknown or not what the method takes",
    Status.NOT_FOUND: "no such peer, offer or uplink",
    Status.PERMISSION_DENIED: "the peer is known, but not trusted",
    Status.TIMEOUT: "something did not answer in time",
    Status.NOT_SUPPORTED: "this machine or peer can't do it",
    Status.UNKNOWN_ERROR: "an error inside the service; its log names the place",
    Status.CONNECTION_FAILED: "the peer can't be reached",
    Status.SYSTEM_ERROR: "a program that the service runs failed",
}


def generated() -> dict[str, str]:
    """Return the text of every generated file by its path in the checkout."""
    return {ACL_FILE: acl_text(), DOCS_FILE: docs_text()}


def acl_text() -> str:
    """Return rpcd's ACL file; methods with access "local" are in neither group."""

    def group(access: Access) -> dict[str, Any]:
        names = [method.name for method in METHODS.values() if method.access == access]
        return {"ubus": {OBJECT: names}, "uci": [CONFIG]}

    acl = {
        PACKAGE: {
            "description": "See and manage WireGuard mesh peers as backup uplinks",
            "read": group("read"),
            "write": group("write"),
        }
    }
    return json.dumps(acl, indent=2) + "\n"


def docs_text() -> str:
    """Return docs/methods.md."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield "# Methods"
    yield ""
    yield "<!-- Made from rpcd_wireguard_uplink/methods.py by `make generate`; don't edit. -->"
    yield ""
    yield f"The object `{OBJECT}` on the bus. Every argument is checked before anything is done:"
    yield "numbers may come as strings, `null` is the same as not given, `ubus_rpc_session` is"
    yield "ignored, and any other argument that a method does not list is refused."
    yield ""
    yield "| method | access | does |"
    yield "| --- | --- | --- |"
    for method in METHODS.values():
        yield f"| [{method.name}](#{method.name}) | {method.access} | {method.doc} |"
    yield ""
    yield "Access is one of"
    yield ""
    for words in _ACCESS_WORDS.values():
        yield f"- {words}"
    yield ""
    yield "## Errors"
    yield ""
    yield 'An error is the table `{"success": false, "error": "...", "code": "..."}` followed by a'
    yield "status: `error` is a sentence for people, `code` stays the same between releases."
    yield ""
    yield "| status | name | means |"
    yield "| --- | --- | --- |"
    for status, words in _STATUS_WORDS.items():
        yield f"| {status.value} | {status.name} | {words} |"
    for method in METHODS.values():
        yield ""
        yield from _method_section(method)


def _method_section(method: Method) -> Iterator[str]:
    yield f"## {method.name}"
    yield ""
    yield f"{method.doc} Access: {method.access}."
    yield ""
    if method.command:
        yield f"    {usage(method)}"
        yield ""
    arguments = method.arguments.properties
    if arguments:
        yield "| argument | type | needed | meaning |"
        yield "| --- | --- | --- | --- |"
        for name, schema in arguments.items():
            needed = "yes" if name in method.arguments.required else "no"
            yield f"| `{name}` | {_type(schema)} | {needed} | {_cell(schema)} |"
    else:
        yield "It takes no arguments."
    yield ""
    yield "| reply | type | meaning |"
    yield "| --- | --- | --- |"
    yield from _reply_rows(method.reply.tree, "")


def usage(method: Method) -> str:
    """Return the method's command line, as in "wgctl uplink remove PEER_ID"."""
    words = ["wgctl uplink", method.command]
    for name, schema in method.arguments.properties.items():
        if name in method.positional:
            words.append("|".join(schema.get("x-words", ())) or name.upper())
        else:
            words.append(f"[--{name.replace('_', '-')} {name.upper()}]")
    return " ".join(words)


def _reply_rows(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, member in schema["properties"].items():
        path = f"{prefix}{name}"
        yield f"| `{path}` | {_type(member)} | {_cell(member)} |"
        if member["type"] == "object":
            yield from _reply_rows(member, f"{path}.")
        elif member["type"] == "array" and member["items"]["type"] == "object":
            yield from _reply_rows(member["items"], f"{path}[].")


def _type(schema: Mapping[str, Any]) -> str:
    declared = schema["type"]
    if not isinstance(declared, str):
        return " or ".join(declared)
    if declared == "array":
        return f"array of {schema['items']['type']}"
    if schema.get("enum") == [0, 1]:
        return "0 or 1"
    return declared


def _cell(schema: Mapping[str, Any]) -> str:
    text: str = schema.get("description", "")
    return text.replace("|", "\\|")


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
