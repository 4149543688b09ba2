"""The short forms of `make chaos`, and what its tools should see."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from . import bus, crashes, limits, soak
from .crashes import Campaign, Row
from .powercut import Disk

SEED = random.randrange(1 << 32)


def check(rows: list[Row]) -> None:
    faults = [fault for row in rows for fault in row.faults]
    assert not faults, "\n".join([f"SEED={SEED}", *faults])
    assert sum(row.tried for row in rows)


@pytest.mark.usefixtures("namespaces")
def test_killed_and_without_power_in_the_middle_of_a_change() -> None:
    campaign = Campaign("openwrt", SEED)
    campaign.run("offer", [*crashes.KINDS])
    check([*campaign.rows.values()])


@pytest.mark.usefixtures("namespaces")
def test_a_full_disk_and_no_memory() -> None:
    lacks = [lack for lack in limits.LACKS if lack.name in ("disk full in the middle", "no memory")]
    check(limits.measure(1, SEED, ("add",), lacks))


@pytest.mark.usefixtures("namespaces")
def test_a_bus_that_dies_and_a_crowd_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "BACK_S", 5.0)  # other tests run beside it
    check(bus.measure(2, 2.0, SEED))


def test_nothing_grows_in_simulated_hours() -> None:
    check([soak.measure_hours(6)])


# --- the whole of it


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("platform", crashes.PLATFORMS)
def test_every_change_is_broken(platform: str) -> None:
    check(crashes.measure(48, SEED, (platform,)))


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("namespaces")
def test_everything_is_lacking_for_a_while() -> None:
    check(limits.measure(1, SEED))


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("namespaces")
def test_a_bus_that_dies_often_and_a_crowd_for_long() -> None:
    check(bus.measure(30, 20.0, SEED))


@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_nothing_grows_in_simulated_days() -> None:
    check([soak.measure_hours(30 * 24)])


@pytest.mark.deep
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("namespaces")
def test_nothing_grows_in_real_minutes() -> None:
    check([soak.measure_use(60.0)])


# --- what a power cut leaves


def outcomes(root: Path, disk: Disk, *names: str) -> set[tuple[str | None, ...]]:
    """What is in these files, None where there is none, behind many power cuts."""
    disk.end()
    seen = set()
    for seed in range(80):
        disk.restore(random.Random(seed))
        files = [root / name for name in names]
        seen.add(tuple(f.read_text() if f.exists() else None for f in files))
    return seen


def test_what_was_not_synced_may_be_lost_in_any_part(tmp_path: Path) -> None:
    old, new = tmp_path / "a", tmp_path / "a.new"
    old.write_text("old")
    disk = Disk(str(tmp_path))
    disk.begin()
    new.write_text("new!")
    disk.changed("create", str(new))
    new.rename(old)
    disk.changed("rename", str(new), str(old))
    seen = {found for (found,) in outcomes(tmp_path, disk, "a")}
    assert {"old", "", "new!", "\0" * 4} < seen


def test_what_was_synced_is_there_whole(tmp_path: Path) -> None:
    old, new = tmp_path / "a", tmp_path / "a.new"
    old.write_text("old")
    disk = Disk(str(tmp_path))
    disk.begin()
    new.write_text("new!")
    disk.changed("create", str(new))
    disk.fsynced(str(new))
    new.rename(old)
    disk.changed("rename", str(new), str(old))
    assert {found for (found,) in outcomes(tmp_path, disk, "a")} == {"old", "new!"}
    (tmp_path / "a").write_text("old")


def test_a_name_is_there_once_its_folder_was_synced(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    disk.begin()
    folder, file = tmp_path / "keys", tmp_path / "keys" / "a"
    folder.mkdir()
    disk.changed("mkdir", str(folder))
    file.write_text("key")
    disk.changed("create", str(file))
    disk.fsynced(str(file))
    disk.fsynced(str(folder))
    assert outcomes(tmp_path, disk, "keys/a") == {("key",), (None,)}, "the folder itself was not"
