"""`wgctl uplink report`: what is in it, and that no secret is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.cli import main
from rpcd_wireguard_uplink.cli.report import CALLS, COMMANDS, without_keys

ROOT = Path(__file__).resolve().parents[3]
KEY = "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM="


def test_keys_are_cut() -> None:
    text = without_keys(f"public key: {KEY}, identity {KEY[:-1]}, {'ab' * 32} and 2001:db8::1")
    assert text == "public key: AwMDAw..., identity AwMDAw..., ababab... and 2001:db8::1"


def test_what_is_asked_only_reads() -> None:
    assert {METHODS[name].access for name in CALLS} == {"read"}


def test_a_report_where_nothing_works(tmp_path: Path) -> None:
    text = "config wireguard-uplink 'uplink'\n\toption min_uplinks '1'\n"
    text += "config mqtt 'broker'\n\toption password 'hunter2'\n"
    (tmp_path / "wireguard-uplink").write_text(text)
    words = ["-s", str(tmp_path / "none"), "report", "-", "--config-dir", str(tmp_path)]
    words = [sys.executable, "-m", "rpcd_wireguard_uplink.cli.main", *words]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert "hunter2" not in done.stdout and "\nmin_uplinks 1\n" in done.stdout
    for command in ("doctor", "configuration", "bus", *COMMANDS):
        assert f"== {command}\n" in done.stdout


def test_a_file_is_for_its_owner_and_nothing_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rpcd_wireguard_uplink.cli.report.report", lambda *_: "all of it\n")
    path = tmp_path / "report.txt"
    assert main.main(["uplink", "report", str(path)]) == 0
    assert path.read_text() == "all of it\n" and os.stat(path).st_mode & 0o777 == 0o600
    assert main.main(["uplink", "report", str(path)]) != 0
    told = capsys.readouterr().err
    assert "can't be written: File exists; name another file: wgctl uplink report FILE" in told
