"""A shell of its own network namespace, for tests of what a real kernel makes of our words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import in_ci


def apart(script: str, *more: str, cwd: Path | None = None) -> str:
    """What a script prints, run by sh in a fresh network namespace (`more` as unshare(1) has it).

    What it leaves running ends with it where `more` says so. It must end well and complain of
    nothing; skips where this user can make no namespace.
    """
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    done = subprocess.run(
        ["unshare", "--net", *more, "sh", "-e", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "PATH": path},
    )
    if "Operation not permitted" in done.stderr:
        if in_ci():
            pytest.fail(done.stderr)
        pytest.skip("namespaces need root")
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout
