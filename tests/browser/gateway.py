"""The web server's /ubus: JSON-RPC in, calls on a real bus out, every call held to the ACL.

Follows uhttpd's rules (ubus.c: uh_ubus_handle_request_object, uh_ubus_send_request); sessions are
rpcd's, made from the files of acl.d/. Objects that are other programs' are given as functions.
tests/data/uhttpd-ubus.json holds it to the real one.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rpcd_wireguard_uplink.errors import BusError, TimedOut
from rpcd_wireguard_uplink.ubus.blobmsg import decode_table, encode_table
from rpcd_wireguard_uplink.ubus.blocking import BlockingBus
from rpcd_wireguard_uplink.ubus.framing import Attr

POST_LIMIT = 65536
SCRIPT_TIMEOUT_S = 60.0
SESSION_KEY = "ubus_rpc_session"
TYPE_NAMES = {1: "array", 2: "object", 3: "string", 4: "number", 5: "number", 6: "number"}
TYPE_NAMES |= {7: "boolean", 8: "number"}
ERRORS = {
    -32700: "Parse error",
    -32601: "Method not found",
    -32602: "Invalid parameters",
    -32000: "Object not found",
    -32002: "Access denied",
    -32003: "ubus request timed out",
}

Table = dict[str, Any]
Answer = tuple[int, Table | None]


@dataclass(slots=True)
class Session:
    """What one login may do: for each scope the pairs of object and function, as patterns."""

    grants: dict[str, set[tuple[str, str]]] = field(default_factory=dict)
    sid: str = field(default_factory=lambda: secrets.token_hex(16))

    def grant(self, permissions: Mapping[str, Any], function: str) -> None:
        """Take over one side of an ACL group (rpcd's session.c: rpc_login_setup_acl_scope)."""
        for scope, objects in permissions.items():
            pairs = self.grants.setdefault(scope, set())
            for name in objects:
                functions = objects[name] if isinstance(objects, dict) else [function]
                pairs |= {(name, one) for one in functions}

    def may(self, scope: str, name: str, function: str) -> bool:
        """rpcd's `session access`."""
        pairs = self.grants.get(scope, ())
        return any(fnmatchcase(name, o) and fnmatchcase(function, f) for o, f in pairs)


def log_in(acl_files: Iterable[Path], *, write: bool) -> Session:
    """A session of a user who has the read, or the read and write, side of these ACL files."""
    session = Session()
    for file in acl_files:
        for group in json.loads(file.read_text(encoding="utf-8")).values():
            session.grant(group.get("read", {}), "read")
            if write:
                session.grant(group.get("write", {}), "write")
    return session


class Refused(Exception):
    """A JSON-RPC error by its code."""

    def __init__(self, code: int) -> None:
        super().__init__(ERRORS[code])
        self.code = code


Function = Callable[[Session, Table], Answer]


@dataclass(slots=True)
class Gateway:
    """`handle` answers one POST. `asked` are the calls that went through, `refused` those denied.

    `others` are objects beside the bus. A test may set `rewrite` to stand for a service that says
    what ours never would: it gets the method and the reply and returns the reply.
    """

    socket: str
    sessions: dict[str, Session] = field(default_factory=dict)
    others: dict[str, dict[str, Function]] = field(default_factory=dict)
    asked: list[tuple[str, Table]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    rewrite: Callable[[str, Table], Table] | None = None

    def admit(self, session: Session) -> Session:
        """Let a session in."""
        self.sessions[session.sid] = session
        return session

    def handle(self, body: bytes) -> Any:
        """The reply to a POST's body, to be sent as JSON."""
        try:
            request = json.loads(body) if len(body) <= POST_LIMIT else None
        except ValueError:
            request = None
        if isinstance(request, list):
            return [self._one(each) for each in request]
        return self._one(request)

    def _one(self, request: Any) -> Table:
        reply: Table = {"jsonrpc": "2.0", "id": None}
        try:
            if not isinstance(request, dict):
                raise Refused(-32700)
            reply["id"] = request.get("id")
            reply["result"] = self._result(request)
        except Refused as refused:
            reply["error"] = {"code": refused.code, "message": str(refused)}
        return reply

    def _result(self, request: Table) -> Any:
        params = request.get("params")
        if request.get("jsonrpc") != "2.0" or not isinstance(request.get("method"), str):
            raise Refused(-32700)
        if request["method"] == "list":
            return self._list(params)
        if request["method"] != "call":
            raise Refused(-32601)
        if not isinstance(params, list) or len(params) < 4 or not isinstance(params[3], dict):
            raise Refused(-32700)
        sid, name, function, arguments = params[:4]
        return self._call(sid, name, function, arguments)

    def _call(self, sid: str, name: str, function: str, arguments: Table) -> list[Any]:
        bus = None if name in self.others else self._open()
        try:
            number = 0 if bus is None else _look_up(bus, name).get(Attr.OBJID)
            if number is None:
                raise Refused(-32000)
            session = self.sessions.get(sid)
            if session is None or not session.may("ubus", name, function):
                self.refused.append(function)
                raise Refused(-32002)
            if SESSION_KEY in arguments:
                raise Refused(-32602)
            self.asked.append((function, arguments))
            if bus is None:
                called = self.others[name].get(function)
                status, table = called(session, arguments) if called else (3, None)
            else:
                status, table = _invoke(bus, number, function, {**arguments, SESSION_KEY: sid})
        finally:
            if bus is not None:
                bus.close()
        if table is None:
            return [status]
        return [status, self.rewrite(function, table) if self.rewrite else table]

    def _list(self, names: Any) -> Table:
        if not isinstance(names, list):
            return {}
        bus = self._open()
        try:
            found = {name: _look_up(bus, name) for name in names}
        finally:
            bus.close()
        return {name: _signature(reply) for name, reply in found.items() if reply}

    def _open(self) -> BlockingBus:
        try:
            return BlockingBus(self.socket)
        except BusError as error:
            raise Refused(-32000) from error


def _look_up(bus: BlockingBus, name: str) -> dict[int, Any]:
    replies = bus.ask(bus.connection.lookup(name), SCRIPT_TIMEOUT_S).replies
    return replies[0] if replies else {}


def _signature(reply: dict[int, Any]) -> Table:
    methods = decode_table(reply[Attr.SIGNATURE])
    return {
        method: {name: TYPE_NAMES[kind] for name, kind in arguments.items()}
        for method, arguments in methods.items()
    }


def _invoke(bus: BlockingBus, number: int, function: str, arguments: Table) -> Answer:
    try:
        done = bus.ask(
            bus.connection.invoke(number, function, encode_table(arguments)), SCRIPT_TIMEOUT_S
        )
    except TimedOut as error:
        raise Refused(-32003) from error
    tables = done.tables()
    return int(done.status), decode_table(tables[0]) if tables else None
