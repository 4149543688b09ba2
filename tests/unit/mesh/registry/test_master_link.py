"""What SecuBox's packages keep: the shapes that their scripts write, damaged ones, and both ways.

The records are laid out as ml_join_request, ml_join_approve, ml_join_reject (master-link.sh) and
register_self, add_peer (secubox-p2p) lay them out.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rpcd_wireguard_uplink.errors import BusError, CallFailed, CommandFailed, Status, TimedOut
from rpcd_wireguard_uplink.mesh.registry import master_link
from rpcd_wireguard_uplink.mesh.registry.directory import Record
from rpcd_wireguard_uplink.mesh.registry.master_link import BusCall
from rpcd_wireguard_uplink.mesh.registry.trust import Approval

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's file")
FP, FP2, FP3 = "0123456789abcdef", "1111222233334444", "aaaabbbbccccdddd"
WHO = {"fingerprint": FP, "address": "192.168.1.5", "hostname": "nodeA"}
REQUEST = {**WHO, "timestamp": 1700000000}
PROOF = {"token_hash": "ab12", "zkp_verified": False, "zkp_proof_hash": ""}
PENDING = {**REQUEST, **PROOF, "status": "pending"}
GIVEN = {"approved_at": 1700000060, "approved_by": FP2, "depth": 1, "zkp_graph_stored": False}
APPROVED = {**PENDING, **GIVEN, "status": "approved"}
REFUSAL = {"rejected_at": 1700000060, "rejected_by": FP2, "reason": "rejected by admin"}
REJECTED = {**REQUEST, **REFUSAL, "status": "rejected"}
PEERS = {
    "peers": [
        {
            "id": "sb-0011aabbccdd",
            "name": "here (local)",
            "address": "192.168.1.1",
            "wan_address": "203.0.113.7",
            "wg_addresses": "10.9.0.1",
            "addresses": [{"type": "lan", "address": "192.168.1.1", "port": 7331}],
            "status": "online",
            "is_local": True,
            "added": "2026-01-01T00:00:00+00:00",
        },
        {
            "id": "peer-0a1b2c3d",
            "name": "nodeA",
            "address": "192.168.1.5",
            "wan_address": "",
            "wg_addresses": "10.9.0.2,10.8.0.2\n10.7.0.2",
            "addresses": [
                {"type": "lan", "address": "192.168.1.5", "port": 7331},
                {"type": "wireguard", "address": "10.9.0.2", "port": 7331},
            ],
            "status": "unknown",
            "added": "2026-01-01T00:00:00+00:00",
        },
        {"id": "peer-10.0.0.3", "name": "SecuBox@10.0.0.3", "address": "10.0.0.3", "status": "x"},
    ]
}
RECORDS = (
    Record("peer-0a1b2c3d", "nodeA", ("10.9.0.2", "10.8.0.2", "10.7.0.2", "192.168.1.5")),
    Record("peer-10.0.0.3", "SecuBox@10.0.0.3", ("10.0.0.3",)),
)


class Bus:
    """A bus with these objects; others are answered as the bus answers for what isn't there."""

    def __init__(self, objects: Mapping[tuple[str, str], Mapping[str, Any] | Exception]) -> None:
        self.objects = objects
        self.asked: list[tuple[str, str]] = []

    async def call(self, path: str, method: str) -> Mapping[str, Any]:
        self.asked.append((path, method))
        answer = self.objects.get((path, method))
        if answer is None:
            raise CallFailed(f"{path} is not on the bus", Status.NOT_FOUND)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scripts of these tests write their files at once."""
    monkeypatch.setattr(master_link, "WRITING_S", 0.0)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Where records and key files would be; not made yet."""
    return tmp_path / "requests", tmp_path / "trusted"


async def read(folders: tuple[Path, Path], call: BusCall | None = None) -> Any:
    return await master_link.read_approvals(call, str(folders[0]), str(folders[1]))


def keep(folder: Path, name: str, content: object) -> None:
    folder.mkdir(exist_ok=True)
    text = content if isinstance(content, str) else json.dumps(content, indent="\t")
    (folder / name).write_text(text)


# --- master-link


@pytest.mark.parametrize(
    ("row", "status"), [(PENDING, "pending"), (APPROVED, "approved"), (REJECTED, "rejected")]
)
async def test_a_record(folders: tuple[Path, Path], row: dict[str, Any], status: str) -> None:
    keep(folders[0], f"{FP}.json", row)
    assert await read(folders) == (Approval(FP, "nodeA", "192.168.1.5", status),)


async def test_no_master_link_and_no_record(folders: tuple[Path, Path]) -> None:
    bus = Bus({})
    assert await read(folders) is None
    assert await read(folders, bus.call) is None
    assert bus.asked == [("luci.master-link", "peers"), ("luci.master_link", "peers")]
    folders[0].mkdir()
    assert await read(folders) == ()


@pytest.mark.parametrize("name", ["luci.master-link", "luci.master_link"])
async def test_over_the_bus(folders: tuple[Path, Path], name: str) -> None:
    bus = Bus({(name, "peers"): {"peers": [APPROVED, {**PENDING, "fingerprint": FP2}]}})
    assert await read(folders, bus.call) == (
        Approval(FP, "nodeA", "192.168.1.5", "approved"),
        Approval(FP2, "nodeA", "192.168.1.5", "pending"),
    )


async def test_files_go_before_the_bus(folders: tuple[Path, Path]) -> None:
    keep(folders[0], f"{FP}.json", PENDING)
    bus = Bus({})
    assert [one.status for one in await read(folders, bus.call)] == ["pending"]
    assert bus.asked == []


@pytest.mark.parametrize("error", [TimedOut("late"), CallFailed("bad", Status.INVALID_COMMAND)])
async def test_a_bus_that_fails_is_no_empty_list(
    folders: tuple[Path, Path], error: Exception
) -> None:
    with pytest.raises((BusError, TimedOut)):
        await read(folders, Bus({("luci.master-link", "peers"): error}).call)


async def test_a_key_file_outlives_the_record(folders: tuple[Path, Path]) -> None:
    # Records are on tmpfs: after a boot only the keys of approved peers are left.
    keep(folders[1], f"{FP}.pub", "key")
    assert await read(folders) == (Approval(FP, status="approved"),)
    keep(folders[0], f"{FP}.json", REJECTED)
    keep(folders[0], f"{FP2}.json", {**APPROVED, "fingerprint": FP2})
    assert {one.fingerprint: one.status for one in await read(folders)} == {
        FP: "rejected",
        FP2: "approved",
    }


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        '{"fingerprint": "0123456789abcdef", "hostname": "a"b", "status": "approved"}',
        {**APPROVED, "fingerprint": FP2},
        {**APPROVED, "fingerprint": 5},
        {**APPROVED, "status": "APPROVED"},
        {**APPROVED, "status": ["approved"]},
        {"fingerprint": FP},
    ],
    ids=lambda content: repr(content)[:60],
)
async def test_a_damaged_record_approves_nobody(
    folders: tuple[Path, Path], content: object
) -> None:
    keep(folders[0], f"{FP}.json", content)
    keep(folders[1], f"{FP}.pub", "key")
    keep(folders[0], f"{FP3}.json", {**APPROVED, "fingerprint": FP3})
    found = {one.fingerprint: one.status for one in await read(folders)}
    assert found == {FP: "unreadable", FP3: "approved"}


async def test_a_record_that_is_being_written_is_waited_for(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sleep(seconds: float) -> None:
        keep(folders[0], f"{FP}.json", APPROVED)

    keep(folders[0], f"{FP}.json", "")
    monkeypatch.setattr(master_link.asyncio, "sleep", sleep)
    assert [one.status for one in await read(folders)] == ["approved"]


async def test_names_of_files_and_claims_are_cut_down(folders: tuple[Path, Path]) -> None:
    for name in ("a b.json", ".json", f"{FP}.json.tmp", "x" * 129 + ".json", "sub"):
        keep(folders[0], name, APPROVED)
    row = {**APPROVED, "hostname": "h" * 5000, "address": "not an address"}
    keep(folders[0], f"{FP}.json", row)
    assert await read(folders) == (Approval(FP, "h" * 256, "", "approved"),)


# --- secubox-p2p


async def test_peers_of_its_file(tmp_path: Path) -> None:
    keep(tmp_path, "peers.json", PEERS)
    assert await master_link.read_records(None, str(tmp_path / "peers.json")) == RECORDS


async def test_peers_over_the_bus(tmp_path: Path) -> None:
    bus = Bus({("luci.secubox-p2p", "get_peers"): PEERS})
    assert await master_link.read_records(bus.call, str(tmp_path / "none")) == RECORDS
    assert await master_link.read_records(Bus({}).call, str(tmp_path / "none")) is None
    assert await master_link.read_records(None, str(tmp_path / "none")) is None


@pytest.mark.parametrize("name", ["a b", "x" * 65, "nodeA\n", 7, None])
def test_rows_that_name_no_peer(name: object) -> None:
    assert master_link.parse_records([{"id": name}, {}, {"id": "sb-1", "is_local": True}]) == ()


# --- mirrornet


async def test_a_message_goes_out(tmp_path: Path) -> None:
    command = tmp_path / "mirrorctl"
    message = {"type": "uplink_offer", "peer_id": "nodeA", "wan_type": 'it\'s $(id) `id` \\ "x" ä'}
    assert not await master_link.publish_gossip(message, str(command)), "it is not installed"
    command.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/told\n')
    command.chmod(0o755)
    assert await master_link.publish_gossip(message, str(command))
    first, second, text = (tmp_path / "told").read_text().splitlines()
    assert (first, second) == ("broadcast", "uplink_offer")
    assert json.loads(text) == message
    command.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(CommandFailed, match="has secubox-p2p found a peer") as caught:
        await master_link.publish_gossip(message, str(command))
    assert "nodeA" not in str(caught.value)


# --- what somebody else has put into their places


def planted_fifo(path: Path) -> None:
    os.mkfifo(path)


def planted_file(path: Path) -> None:
    path.write_text(json.dumps({**APPROVED, **PEERS}))
    os.chown(path, 65534, 65534)


PLANTS = [planted_fifo, pytest.param(planted_file, marks=AS_ROOT)]


@pytest.mark.parametrize("plant", PLANTS)
async def test_planted_peers_are_nobodys_word(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    path, problems = tmp_path / "peers.json", {"other": "stays"}
    plant(path)
    async with asyncio.timeout(5):
        found = await master_link.read_records(None, str(path), problems)
        asked = await master_link.read_records(
            Bus({("luci.secubox-p2p", "get_peers"): PEERS}).call, str(path)
        )
    assert found is None and asked == RECORDS, "the bus is asked instead"
    assert str(path) in problems[f"file {path}"]
    path.unlink()
    path.write_text(json.dumps(PEERS))
    assert await master_link.read_records(None, str(path), problems) == RECORDS
    assert problems == {"other": "stays"}


@pytest.mark.parametrize("plant", PLANTS)
async def test_a_planted_record_approves_nobody(
    tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    plant(tmp_path / f"{FP}.json")
    problems: dict[str, str] = {}
    none = str(tmp_path / "none")
    async with asyncio.timeout(5):
        found = await master_link.read_approvals(None, str(tmp_path), none, problems)
    assert found == (Approval(FP, status="unreadable"),)
    assert f"{FP}.json" in str(problems)


@AS_ROOT
async def test_a_planted_folder_holds_no_records(tmp_path: Path) -> None:
    folder = tmp_path / "requests"
    folder.mkdir()
    (folder / f"{FP}.json").write_text(json.dumps(APPROVED))
    (folder / f"{FP}.pub").write_text("key")
    os.chown(folder, 65534, 65534)
    problems: dict[str, str] = {}
    assert await master_link.read_approvals(None, str(folder), str(folder), problems) is None
    assert "requests is not root's" in problems[f"file {folder}"]
