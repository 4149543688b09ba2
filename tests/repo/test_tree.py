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
CONFLICT = re.compile(r"^[<>]{7}(?: .*)?$", re.MULTILINE)
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


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every file that would be committed, by its path in the project."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8", errors="replace")
        for path in project_files()
    }


@pytest.mark.parametrize("unwanted", [LEAKS, CONFLICT], ids=["machine's paths", "conflicts"])
def test_what_is_in_no_file(texts: dict[str, str], unwanted: re.Pattern[str]) -> None:
    """No path of the machine it was written on, no mark of a merge that stopped half-way."""
    assert {"setup.cfg", ".ci/run"} <= texts.keys()
    found = {name: match[0] for name, text in texts.items() if (match := unwanted.search(text))}
    assert not found


def test_the_search_finds_a_conflict() -> None:
    ours, middle, theirs = ("<" * 7 + " HEAD", "=" * 7, ">" * 7 + " main")
    assert len(CONFLICT.findall(f"a\n{ours}\nb\n{middle}\nc\n{theirs}\n")) == 2
    assert not CONFLICT.search(f"{middle}\nx{ours}\n>>> {theirs}\n<<<<<<")


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
