"""What lies in the project: no trace of the machine it was written on, no unreadable module."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.repo import PACKAGE, ROOT

MADE = {"build", "dist", "node_modules", "__pycache__"}
"""Folders that commands make, besides every hidden one but .ci; see .gitignore."""

# Written so that this file does not contain what it looks for.
LEAKS = re.compile(
    r"(?<![\w}])/(?:(?:work|opt)/(?:main|shared|real)\b|tmp/real\b|(?:root|home)/[.\w])"
)
VAGUE = {"utils", "helpers", "base", "manager", "common"}


def project_files() -> list[Path]:
    """Every file that would be committed."""
    found = []
    for folder, below, names in os.walk(ROOT):
        below[:] = [
            name
            for name in below
            if name not in MADE
            and not name.endswith(".egg-info")
            and (not name.startswith(".") or name == ".ci")
        ]
        found += [Path(folder) / name for name in names if name != ".git"]  # a worktree's
    return sorted(path for path in found if path.suffix not in {".pyc", ".so", ".webp"})


def test_no_path_of_the_machine_it_was_written_on() -> None:
    files = project_files()
    assert ROOT / "setup.cfg" in files and ROOT / ".ci" / "run" in files
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if LEAKS.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert not found


@pytest.mark.parametrize("parts", [("", "work", "main"), ("", "opt", "real"), ("", "root", ".x")])
def test_the_search_finds_such_a_path(parts: tuple[str, ...]) -> None:
    assert LEAKS.search("see " + "/".join(parts) + "/x")
    assert not LEAKS.search("root/etc/config and /etc/config and network/main")


def test_modules_say_what_they_own_and_are_named_for_it() -> None:
    for path in sorted(PACKAGE.rglob("*.py")) + sorted((ROOT / "tests" / "lab").rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        name = path.relative_to(ROOT)
        assert path.stem not in VAGUE, f"{name}: name it for what it owns"
        assert lines and lines[0].startswith('"""'), f"{name} opens without saying what it owns"
