"""Every parser of what others write, with the files of the corpus that it understands."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any
from unittest import mock

import h11

from rpcd_wireguard_uplink.api import dashboard, methods
from rpcd_wireguard_uplink.api.secubox import parse_older
from rpcd_wireguard_uplink.carrying import forwarding, iptables, ruleset
from rpcd_wireguard_uplink.config.options import Settings
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.errors import InvalidArgument, Status
from rpcd_wireguard_uplink.extras import captive
from rpcd_wireguard_uplink.extras.standalone import router
from rpcd_wireguard_uplink.extras.standalone.__main__ import parse_json
from rpcd_wireguard_uplink.history.series import SPANS, Sample, Series
from rpcd_wireguard_uplink.mesh.http import client, connection
from rpcd_wireguard_uplink.mesh.offers import OfferBook
from rpcd_wireguard_uplink.mesh.registry import directory as mesh
from rpcd_wireguard_uplink.mesh.registry import master_link
from rpcd_wireguard_uplink.mesh.wire.endpoints import check_endpoint_host
from rpcd_wireguard_uplink.mesh.wire.lease import (
    Denial,
    Identity,
    LeaseGrant,
    LeaseRelease,
    LeaseRequest,
)
from rpcd_wireguard_uplink.mesh.wire.offer import parse_message
from rpcd_wireguard_uplink.mesh.wire.signing import verify
from rpcd_wireguard_uplink.model import Endpoint, Family, Uplink
from rpcd_wireguard_uplink.mwan3 import dialect, sections
from rpcd_wireguard_uplink.mwan3.status import parse_status
from rpcd_wireguard_uplink.platform import netifd, tunnels
from rpcd_wireguard_uplink.platform.endpoint_addresses import GoodAddresses
from rpcd_wireguard_uplink.probing.icmp import parse_reply
from rpcd_wireguard_uplink.provider.rates import parse_classes
from rpcd_wireguard_uplink.provider.unkept_leases import UnkeptLeases
from rpcd_wireguard_uplink.schema import endpoints
from rpcd_wireguard_uplink.schema.json_message import parse_json_message
from rpcd_wireguard_uplink.steering.memory import Memory
from rpcd_wireguard_uplink.storage.state_file import read_state
from rpcd_wireguard_uplink.storage.usage import Ledger
from rpcd_wireguard_uplink.system import dns, files, nft, proc, process, rtnetlink, wg
from rpcd_wireguard_uplink.system.netlink import parse_messages
from rpcd_wireguard_uplink.ubus import blobmsg, framing, objects
from rpcd_wireguard_uplink.ubus.protocol import Connection
from rpcd_wireguard_uplink.uci import document, grammar
from rpcd_wireguard_uplink.warnings import Warnings

Parse = Callable[[bytes], object]
DATA = "../../data/"
MESSAGES = tuple(
    f"{name}.json"
    for name in ("offer", "withdrawal", "request", "grant", "denial", "identity", "release")
)


@dataclass(frozen=True, slots=True)
class Target:
    """A parser of bytes, and its files in the corpus."""

    parse: Parse
    seeds: tuple[str, ...]


def text(parse: Callable[[str], object]) -> Parse:
    """Of text as programs' output and other programs' files are read."""
    return lambda data: parse(data.decode(errors="replace"))


def table(parse: Callable[[Any], object]) -> Parse:
    """Of a table that JSON or the bus brought; what is none never comes to the parser."""

    def parse_table(data: bytes) -> object:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            return None
        return parse(found) if isinstance(found, dict) else None

    return parse_table


def printed(program: str, parse: Callable[[str], object]) -> Parse:
    """Of what a program printed, where its caller translates what the parser stumbles over."""

    def parse_printed(data: bytes) -> object:
        with process.understood(program):
            return parse(data.decode(errors="replace"))

    return parse_printed


def from_file(read: Callable[[str], object]) -> Parse:
    """Of a file, by its path."""

    def parse_file(data: bytes) -> object:
        with tempfile.NamedTemporaryFile(
            dir="/dev/shm" if os.path.isdir("/dev/shm") else None
        ) as f:
            f.write(data)
            f.flush()
            return read(f.name)

    return parse_file


def message(data: bytes) -> object:
    """A message's whole way in, from the bytes that arrived."""
    return parse_message(parse_json_message(data))


def kernel_news(data: bytes) -> object:
    """All that is read of rtnetlink."""
    found = [one for _, one in parse_messages(data)]
    kinds = (rtnetlink.parse_link, rtnetlink.parse_route, rtnetlink.parse_rule)
    nft.deleted_tables(found), nft.changes_others(found, "wgup")
    [nft.uses_connection_marks(one, 1) for one in found]
    list(rtnetlink.link_events(found))
    return [parse(one) for one in found for parse in (*kinds, rtnetlink.parse_address)]


def _talked(talk: Callable[[socket.socket], Coroutine[Any, Any, object]]) -> Parse:
    """Of what comes over a connection, which the other side then closes."""

    async def hear(data: bytes) -> object:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(1.0)
        with ours, theirs:
            theirs.sendall(data[:65536])
            theirs.shutdown(socket.SHUT_WR)
            return await talk(ours)

    return lambda data: asyncio.run(hear(data))


async def _serve(sock: socket.socket) -> None:
    async def handle(request: connection.Request) -> connection.Response:
        return connection.Response(200, {})

    rules = connection.Rules(handle, {"/v1/lease": ("POST",)}, 1.0, lambda code: None)
    served = connection.Connection(sock.dup(), "192.0.2.1", "wg0", rules)
    await served.task


async def _ask(sock: socket.socket) -> object:
    try:
        return await client._exchange(sock, "POST", "/v1/lease", b"{}")
    except (ValueError, InvalidArgument, h11.RemoteProtocolError):
        return None  # what request() translates


def bus_messages(data: bytes) -> object:
    """What a client of the bus makes of what the bus sends."""
    return list(Connection().receive(data))


def bus_clients(data: bytes) -> object:
    """What the bus makes of what a client of it sends. Ids are in order, so that calls fit."""
    bus = router.Router()
    with mock.patch.object(router, "_new_id", lambda taken: framing.FIRST_ID + len(taken)):
        peer = bus.join("root", "root", lambda sent, whole: None)
        for found in framing.FrameReader().feed(data):
            bus.receive(peer, found)
    return bus.leave(peer)


def older_uplinks(text: str) -> object:
    """SecuBox's own file of uplinks."""
    found = [parse_older(section, set()) for section in document.parse(text, file="f").sections]
    assert all(1 <= uplink.weight <= 100 for uplink in found)
    return found


def others_sections(text: str) -> object:
    """The owner's `network` and `mwan3`."""
    found = document.parse(text, file="f").sections
    uplink = Uplink("nodea", "wgup_nodea", Endpoint("192.0.2.1", 51820), "k", ("10.0.0.2/32",))
    wanted = sections.wanted_mwan3(found, [uplink], Settings(), ["wan"])
    dialect.diverted_marks(found, ["wan"]), sections.plan_mwan3(wanted, found)
    return sections.render(wanted), tunnels.tunnels_of(found)


def whole_ruleset(text: str) -> object:
    """A packet filter's rules, and what they do with packets."""
    lans, of_tunnels = {"br-lan": ("192.168.1.1/24", "fd00:1::1/64")}, {"wgup_nodea": tuple(Family)}
    paths = forwarding.Paths(lans, ("eth0",), of_tunnels)
    return [
        found.sentence
        for found in forwarding.look_through(ruleset.parse_ruleset(text), paths).blockages
    ]


def configuration(data: bytes) -> object:
    """A whole file of ours, to the settings."""
    return parse_config(document.parse(data, file="f").sections)


def arguments(given: dict[str, Any]) -> object:
    """What a caller on the bus gave, for each method."""
    found = []
    for method in methods.METHODS.values():
        try:
            found.append(methods.parse_arguments(method, given))
        except InvalidArgument as error:
            assert error.status is Status.INVALID_ARGUMENT
    return found


def restored(path: str) -> object:
    """What an earlier run left, as the service takes it over."""
    found, book = read_state(path), OfferBook()
    book.restore(found.offers, found.sequences, 0.0)
    return [*book.rows(0.0)]


def command_line(words: str) -> object:
    """Arguments in JSON, as a person types them; what is none is a ValueError there."""
    try:
        return blobmsg.encode_table(parse_json(words))
    except ValueError:
        return None


def portal_page(url: str) -> object:
    """The page that the owner has asked for portals."""
    return captive.page_at(url, "192.0.2.1")


def series_of(kept: dict[str, Any]) -> object:
    """The numbers of paths that an earlier run has kept."""
    series = Series()
    series.restore(kept)
    series.take({"wan": Sample(1.0, 0.0, 1000, 1000)}, 100_000.0)
    return json.dumps(series.as_table()), [series.of(span) for span in SPANS]


def good_addresses(path: str) -> object:
    """The addresses that providers answered at last."""
    at = Endpoint("nodeA.example.com", 51820)
    return GoodAddresses(path, Warnings(), 0.0).of("wgup_nodea", at)


def memory_of(path: str) -> object:
    """What steering remembers."""
    return Memory(path).load()


TARGETS: dict[str, Target] = {
    "bus: frames": Target(lambda d: list(framing.FrameReader(4096).feed(d)), ("frames.bin",)),
    "bus: messages": Target(bus_messages, ("frames.bin",)),
    "bus: attributes": Target(framing.parse_attributes, ("frames.bin", "blob.bin")),
    "bus: table": Target(blobmsg.decode_table, ("blob.bin",)),
    "bus: signature": Target(objects.parse_signature, ("blob.bin",)),
    "bus: arguments": Target(table(arguments), (*MESSAGES, "arguments.json")),
    "bus: netifd": Target(table(netifd.parse_dump), ("netifd.json",)),
    "bus: master-link": Target(
        table(lambda row: (master_link.parse_approvals([row]), master_link.parse_records([row]))),
        ("record.json",),
    ),
    "bus: command line": Target(text(command_line), ("offer.json",)),
    "portal: URL": Target(text(portal_page), ("portal.txt",)),
    "bus: clients": Target(bus_clients, ("client.bin",)),
    "dashboard: reply": Target(text(dashboard.parse_reply), ("netifd.json",)),
    "dashboard: list": Target(text(dashboard.parse_signatures), ("signatures.json",)),
    "uci: lines": Target(
        lambda d: list(grammar.read_lines(d.decode("utf-8", "surrogateescape"), file="f")),
        ("uplinks.uci", "network.uci"),
    ),
    "uci: document": Target(lambda d: document.parse(d, file="f"), ("uplinks.uci", "network.uci")),
    "uci: settings": Target(configuration, ("uplinks.uci",)),
    "http: request": Target(_talked(_serve), ("request.http",)),
    "http: response": Target(_talked(_ask), ("response.http",)),
    "http: portal": Target(
        lambda d: captive.parse_answer(d, "http://a.example/204"), ("portal.http",)
    ),
    "mesh: json": Target(parse_json_message, MESSAGES),
    "mesh: message": Target(message, MESSAGES),
    "mesh: message as text": Target(
        lambda d: parse_message(d.decode("utf-8", "surrogateescape")), MESSAGES
    ),
    "mesh: signature": Target(table(verify), MESSAGES),
    "mesh: endpoint": Target(text(endpoints.parse_endpoint), ("endpoint.txt",)),
    "mesh: host": Target(text(endpoints.parse_host), ("endpoint.txt",)),
    "mesh: address": Target(text(endpoints.parse_address), ("address.txt",)),
    "mesh: peer's host": Target(
        text(lambda host: check_endpoint_host(host, ["192.0.2.1/24", "fd00::1"])), ("endpoint.txt",)
    ),
    "mesh: peer's address": Target(text(mesh.plain_address), ("address.txt",)),
    "lease: request": Target(table(LeaseRequest.parse), MESSAGES),
    "lease: grant": Target(table(LeaseGrant.parse), MESSAGES),
    "lease: denial": Target(table(Denial.parse), MESSAGES),
    "lease: release": Target(table(LeaseRelease.parse), MESSAGES),
    "lease: identity": Target(table(Identity.parse), MESSAGES),
    "tool: wg": Target(text(lambda out: wg.parse_dump(out, wg.Ages())), ("wg.txt",)),
    "tool: wg, mesh": Target(
        printed("wg", lambda out: mesh.peers_on(wg.parse_dump(out, wg.Ages()), ["10.9.0.1"])),
        ("wg.txt",),
    ),
    "tool: nft -j": Target(text(ruleset.parse_ruleset), (DATA + "rulesets/debian.json",)),
    "tool: nft -j, judged": Target(printed("nft", whole_ruleset), (DATA + "rulesets/debian.json",)),
    "tool: nft list tables": Target(text(nft.parse_tables), ("tables.txt",)),
    "tool: iptables-save": Target(
        printed("iptables-save", lambda out: iptables.parse_save(out, "ip")),
        (DATA + "rulesets/docker.save.txt",),
    ),
    "tool: tc": Target(text(parse_classes), ("tc.txt",)),
    "bus: mwan3": Target(table(parse_status), ("mwan3.json",)),
    "proc: devices": Target(from_file(proc.device_bytes), ("devices.txt",)),
    "proc: snmp6": Target(text(lambda out: dict(proc.parse_snmp6(out))), ("snmp6.txt",)),
    "proc: netstat": Target(text(lambda out: list(proc.parse_netstat(out))), ("netstat.txt",)),
    "netlink: routes": Target(kernel_news, ("netlink.bin", "hops.bin")),
    "netlink: nftables": Target(lambda d: list(nft.parse_elements(d)), ("elements.bin",)),
    "dns: reply": Target(lambda d: dns.parse_answers(d, 7), ("dns.bin",)),
    "dns: resolv.conf": Target(text(dns.parse_resolvers), ("resolv.txt",)),
    "icmp: reply": Target(lambda d: parse_reply(Family.IPV4, d), ("echo.bin",)),
    "icmp: reply, IPv6": Target(lambda d: parse_reply(Family.IPV6, d), ("echo6.bin",)),
    "file: state": Target(from_file(restored), ("state.json",)),
    "file: usage": Target(table(Ledger.from_table), ("usage.json",)),
    "file: memory": Target(from_file(memory_of), ("memory.json",)),
    "file: series": Target(table(series_of), ("series.json",)),
    "file: leases": Target(
        from_file(lambda path: UnkeptLeases(path, Warnings()).complete([])), ("leases.json",)
    ),
    "file: endpoints": Target(from_file(good_addresses), ("endpoints.json",)),
    "file: older uplinks": Target(text(older_uplinks), ("older.uci",)),
    "file: owner's": Target(text(others_sections), ("../../data/mwan3-shipped.txt", "network.uci")),
    "file: table": Target(from_file(files.read_table), ("usage.json",)),
}
