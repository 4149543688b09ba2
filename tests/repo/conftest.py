"""What `make install` lays out, once for all tests here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.repo import ROOT


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `make install` has filled, for the Python of OpenWrt 24.10."""
    target = tmp_path_factory.mktemp("router")
    words = ["make", "install", f"DESTDIR={target}"]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True)
    return target
