"""The linters, run as tests: what `make lint` says is part of `make test`."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.repo import ROOT

CHECKS = (["ruff", "check"], ["ruff", "format", "--check", "--diff"], ["mypy"])


@pytest.mark.parametrize("words", CHECKS, ids=" ".join)
def test_linter_is_content(words: list[str]) -> None:
    if importlib.util.find_spec(words[0]) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{words[0]} is not installed")
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
