"""docs/security.md: each of its lines names a test that there is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\|(?! ---)(?P<cells>.+)\|$", re.MULTILINE)


def test_each_line_of_the_security_page_names_a_test_that_there_is() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.M)
    }
    rows = [row["cells"] for row in ROW.finditer(PAGE) if not row["cells"].endswith(" test ")]
    assert len(rows) > 40
    named = [re.search(r"`(test_\w+)` *$", row) for row in rows]
    assert [row for row, found in zip(rows, named, strict=True) if found is None] == []
    assert sorted({found[1] for found in named if found} - defined) == []
