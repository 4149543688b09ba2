"""The files that are made from the method table and from the messages' schemas: rpcd's ACL,
docs/methods.md, docs/messages.md.

Owns their layout; `python -m rpcd_wireguard_uplink.api.export` writes them into the checkout it is
started in, and a test compares. Knows nothing of how methods work. The output depends on the table
and the schemas alone, so that two runs give the same bytes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config.peering import MESH_PORT
from ..errors import Status
from ..mesh.wire import lease, offer
from ..mesh.wire.signing import DECIMALS, DOMAIN
from ..schema.json_message import DEEPEST, LONGEST_JSON
from ..schema.validation import Schema
from .methods import METHODS, OBJECT, Access, Method

PACKAGE = "rpcd-wireguard-uplink"
# The only configuration that a web session may touch: `network` would show private keys.
CONFIG = "wireguard-uplink"
ACL_FILE = "acl.d/rpcd-wireguard-uplink.json"
DOCS_FILE = "docs/methods.md"
MESSAGES_FILE = "docs/messages.md"

MESSAGES: Mapping[str, Schema] = {
    "uplink_offer": offer.OFFER,
    "uplink_withdraw": offer.WITHDRAW,
    "uplink_identity": lease.UPLINK_IDENTITY,
    "lease_request": lease.LEASE_REQUEST,
    "lease_grant": lease.LEASE_GRANT,
    "lease_denial": lease.LEASE_DENIAL,
    "lease_release": lease.LEASE_RELEASE,
}

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
    return {ACL_FILE: acl_text(), DOCS_FILE: docs_text(), MESSAGES_FILE: messages_text()}


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
    yield "<!-- Made from rpcd_wireguard_uplink/api/methods.py by `make generate`; don't edit. -->"
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
    yield from _reply_rows(method.reply_schema.tree, "")


def messages_text() -> str:
    """Return docs/messages.md."""
    return "\n".join(_messages_page()) + "\n"


def _messages_page() -> Iterator[str]:
    yield "# Messages of the mesh"
    yield ""
    yield "<!-- Made from messages.py and lease.py by `make generate`; don't edit. -->"
    yield ""
    yield "What peers say to each other, as JSON (RFC 8259, UTF-8): offers and withdrawals by the"
    yield "mesh, the bus or MQTT, everything else by HTTP over the mesh and inside the tunnel, TCP"
    yield f"port {MESH_PORT}. A message is one object of at most {LONGEST_JSON} bytes and {DEEPEST}"
    yield "levels, with each member once. `null` is the same as not given; members that are not"
    yield "listed here are skipped, so that newer peers can say more. Whatever else breaks the"
    yield "schema is refused as a whole."
    yield ""
    yield "An offer or withdrawal that passed through others must be signed. Signed are the line"
    yield f"`{DOMAIN.decode().strip()}`, its line feed, and all members but `signature` as JSON:"
    yield "names sorted by code point, no spaces, what is not ASCII as `\\u` and four small hex"
    yield f"digits, numbers rounded to {DECIMALS} decimals and as integers where they are whole."
    yield "Whoever passes a message on sends it as it came."
    yield ""
    yield "| message | means |"
    yield "| --- | --- |"
    for name, schema in MESSAGES.items():
        yield f"| [{name}](#{name}) | {schema.tree['description']} |"
    for name, schema in MESSAGES.items():
        yield ""
        yield f"## {name}"
        yield ""
        yield schema.tree["description"]
        yield ""
        yield "| member | type | needed | meaning |"
        yield "| --- | --- | --- | --- |"
        yield from _member_rows(schema.tree, "")
        yield ""
        yield "```json"
        yield json.dumps(_published(schema.tree), indent=1)
        yield "```"


def _member_rows(schema: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for name, member in schema["properties"].items():
        path = f"{prefix}{name}"
        needed = "yes" if name in schema["required"] else "no"
        yield f"| `{path}` | {_type(member)} | {needed} | {_cell(member)} |"
        inner, mark = (member["items"], "[]") if member["type"] == "array" else (member, "")
        if inner["type"] == "object":
            yield from _member_rows(inner, f"{path}{mark}.")


def _published(tree: Any) -> Any:
    """The schema without the annotations that only our own sentences are made of."""
    if isinstance(tree, Mapping):
        return {key: _published(value) for key, value in tree.items() if not key.startswith("x-")}
    return [_published(each) for each in tree] if isinstance(tree, list) else tree


def usage(method: Method) -> str:
    """Return the method's command line, as in "wgctl uplink remove PEER_ID"."""
    words = ["wgctl uplink", method.command]
    for name, schema in method.arguments.properties.items():
        if name in method.arguments.required:
            more = " ..." if schema["type"] == "array" else ""
            words.append("|".join(schema.get("x-words", ())) or name.upper() + more)
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
