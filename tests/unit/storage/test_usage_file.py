"""The ledger's file: kept over a restart, written rarely, never in the way."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.storage import usage_file
from rpcd_wireguard_uplink.storage.usage_file import UsageFile
from rpcd_wireguard_uplink.warnings import Warnings

DAY = date(2026, 3, 10)


def opened(path: Path) -> tuple[UsageFile, Warnings]:
    warnings = Warnings()
    return UsageFile(str(path), warnings), warnings


async def test_a_restart_forgets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "usage.json"
    first, problems = opened(path)
    first.ledger.record({"wgup_a": 1000}, DAY, 1)
    await first.save()
    second, _ = opened(path)
    second.ledger.record({"wgup_a": 1500}, DAY, 1)
    assert second.ledger.used("wgup_a").today == 1500
    assert not problems


async def test_what_is_the_same_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "usage.json"
    file, _ = opened(path)
    await file.save()
    assert not path.exists(), "nothing was counted"
    file.ledger.record({"wgup_a": 1000}, DAY, 1)
    await file.save()
    path.unlink()
    await file.save()
    again, _ = opened(path)
    await again.save()
    assert not path.exists()


async def test_it_is_written_every_six_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, clock = tmp_path / "usage.json", [1000.0]
    monkeypatch.setattr(usage_file.time, "monotonic", lambda: clock[0])
    file, _ = opened(path)
    for hours, there in ((0, False), (5.9, False), (6.1, True)):
        clock[0] = 1000.0 + hours * 3600
        file.ledger.record({"wgup_a": int(hours * 10)}, DAY, 1)
        await file.save_if_due()
        assert path.exists() is there
    path.unlink()
    file.ledger.record({"wgup_a": 1000}, DAY, 1)
    await file.save_if_due()
    assert not path.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 1}', "\x00", "[" * 100_000])
async def test_a_broken_file_is_told_and_written_over(tmp_path: Path, text: str) -> None:
    path = tmp_path / "usage.json"
    path.write_text(text)
    file, problems = opened(path)
    assert "begins anew" in problems[f"usage {path}"] and str(path) in problems[f"usage {path}"]
    file.ledger.record({"wgup_a": 5}, DAY, 1)
    await file.save()
    again, problems = opened(path)
    assert again.ledger.used("wgup_a").period == 5 and not problems


async def test_a_folder_that_takes_no_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "usage.json"
    file, problems = opened(path)
    file.ledger.record({"wgup_a": 5}, DAY, 1)
    await file.save()
    assert problems[f"usage {path}"].startswith(f"can't write {path}")
    os.unlink(tmp_path / "file")
    await file.save()
    assert path.exists(), "it is tried again"
