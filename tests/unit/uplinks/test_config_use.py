"""What one addition does with our file: no read of what is known, and a write for each step."""

from __future__ import annotations

from collections import Counter

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.config.store import ConfigChanged
from rpcd_wireguard_uplink.uci import store as uci_store
from tests.unit.fakes import Machine
from tests.unit.router import Router, offer

OURS = "wireguard-uplink"


@pytest.mark.parametrize("is_edited", [False, True])
async def test_an_addition_reads_our_file_once_at_most(
    router: Router, mocker: MockerFixture, is_edited: bool
) -> None:
    await router.call("uplink_gossip", message=offer("nodea"))
    if is_edited:
        router.write(OURS, router.text(OURS) + "\toption max_loss '30'\n")
    heard: list[ConfigChanged] = []
    router.daemon.events.subscribe(ConfigChanged, heard.append)
    counts: Counter[str] = Counter()
    read, parse = Machine.read, uci_store.parse

    async def counted_read(machine: Machine, config: str) -> object:
        counts[f"read {config}"] += 1
        return await read(machine, config)

    def counted_parse(text: bytes, *, file: str) -> object:
        counts[f"parse {file.rpartition('/')[2]}"] += 1
        return parse(text, file=file)

    mocker.patch.object(Machine, "read", counted_read)
    mocker.patch.object(uci_store, "parse", counted_parse)
    steps = len(router.machine.steps)
    await router.call("uplink_add", peer_id="nodea")
    edits = [step for step in router.machine.steps[steps:] if step.startswith("edit ")]
    assert edits.count(f"edit {OURS}") == 3, "the intent, what is derived from it, and its end"
    assert edits.count("edit network") == 1
    assert counts[f"read {OURS}"] == (1 if is_edited else 0)
    assert counts[f"parse {OURS}"] <= 4, "what is written is read back"
    assert len(heard) == (2 if is_edited else 1), "one event for the whole of it"
