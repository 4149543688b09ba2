"""The linters, run as tests: what `make lint` says is part of `make test`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys

import pytest

from tests.repo import PACKAGE, ROOT

CHECKS = (["ruff", "check"], ["ruff", "format", "--check", "--diff"], ["mypy"])


def test_no_rule_leaves_the_kind_of_a_reject_to_nft() -> None:
    # nft 1.1.3 refuses the whole script: "cannot infer ICMP reject variant to use".
    bare = re.compile(r"""\breject(?! with)['"}]""")
    for path in [*PACKAGE.glob("steering/**/*.py"), *PACKAGE.glob("provider/**/*.py")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            assert not bare.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


@pytest.mark.timeout(500)  # it computes, and gives way to laboratories
@pytest.mark.parametrize("words", CHECKS, ids=" ".join)
def test_linter_is_content(words: list[str]) -> None:
    if importlib.util.find_spec(words[0]) is None and os.environ.get("CI") != "true":
        pytest.skip(f"{words[0]} is not installed")
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
