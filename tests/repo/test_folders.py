"""Imports go down only: the order of the folders, and which do not know one another."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.repo import PACKAGE, ROOT

ORDER = (
    *("values", "errors", "text", "reasons", "schema", "model", "uci", "ubus"),
    *("warnings", "tasks", "events", "system"),
    *("config", "storage", "platform", "probing"),
    *("failover", "mwan3", "mesh", "carrying", "steering", "history"),
    *("uplinks", "provider", "api", "extras", "cli", "uninstall", "daemon"),
    *("command_line", "service", "__main__"),
)
"""Lowest first: a folder imports what stands before it, never what stands after it."""

APART = ({"failover", "mwan3", "mesh"}, {"uplinks", "steering"}, {"mwan3", "steering"})
"""Folders that do not know one another, in either direction."""

NOT_YET: set[tuple[str, str]] = set()
"""Imports that still go the wrong way. Each must be found: this list only becomes shorter."""

PURE = (
    *("errors", "text", "reasons", "model", "storage/usage", "history/series"),
    *("config/options", "schema/endpoints"),
    *("mesh/registry/trust", "provider/lease_pool", "provider/plan", "platform/tunnels"),
    *("config/probe_profile", "probing/link_quality", "failover/detector"),
    *("probing/capacity", "failover/selection", "failover/machine"),
    *("probing/targets", "probing/probe_kind", "probing/mtu_search", "probing/round_trip"),
    "mwan3/sections",
    *("steering/plan", "steering/tables", "steering/rules"),
    *("steering/filter/table", "steering/filter/early", "steering/filter/anchors"),
    "steering/filter/kill_switch",
)
"""Decisions: neither a clock nor input."""

IMPURE = {"asyncio", "random", "selectors", "signal", "socket", "subprocess", "threading", "time"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def folder_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """Every statement below a node; what is in expressions is not looked at."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield child
            yield from statements(child)


def imported(module: ast.Module, package: str) -> Iterator[str]:
    """The full names of the modules that a module of `package` imports, wherever it does so."""
    for node in statements(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            whole = ".".join(part for part in (above, node.module) if part)
            if whole == PACKAGE.name:
                yield from (f"{whole}.{alias.name}" for alias in node.names)
            else:
                yield whole


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a file of ours imports."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    return frozenset(imported(tree_of(path), package))


def inner_folders(names: Iterable[str]) -> set[str]:
    """The folders (or single modules) of ours among these modules."""
    split = (name.split(".") for name in names)
    return {parts[1] for parts in split if parts[0] == PACKAGE.name and len(parts) > 1}


def wrong_ways() -> dict[tuple[str, str], list[str]]:
    """Pairs of folders whose imports break ORDER or APART, with the files that do so."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in modules():
        folder = folder_of(path)
        for other in inner_folders(names_in(path)) - {folder, "__version__"}:
            below = folder != "__init__" and ORDER.index(other) < ORDER.index(folder)
            if not below or any({folder, other} <= apart for apart in APART):
                found.setdefault((folder, other), []).append(str(path.relative_to(PACKAGE)))
    return found


def test_a_module_has_a_folder_and_a_folder_one_duty() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 14
    for folder in (path for path in PACKAGE.rglob("*") if path.is_dir()):
        assert len(list(folder.glob("*.py"))) <= 11, f"{folder.name} has two duties"


def test_imports_go_down() -> None:
    found = wrong_ways()
    new = {pair: files for pair, files in found.items() if pair not in NOT_YET}
    assert not new, "a folder imports one that is not below it, or one that it must not know"
    assert set(found) == NOT_YET, "mended: take it out of NOT_YET"


@pytest.mark.parametrize("module", PURE)
def test_decisions_have_no_clock_and_no_input(module: str) -> None:
    path = PACKAGE / f"{module}.py"
    assert not {name.split(".")[0] for name in names_in(path)} & IMPURE


def test_no_wait_can_lose_a_cancellation() -> None:
    """asyncio.wait_for does before Python 3.12, where what it waits for ends in the same moment:
    a task that was to end goes on, and so does who waits for its end.
    """
    found = [path for path in modules() if "asyncio.wait_for" in path.read_text(encoding="utf-8")]
    assert not found, "use asyncio.timeout"


def test_the_scan_sees_every_form_of_import() -> None:
    text = (
        "import socket\nfrom .. import process\nfrom ..model import Uplink\nfrom . import lane\n"
        "def f():\n    from rpcd_wireguard_uplink import daemon\n    import a.b as c\n"
        "try:\n    import tried\nexcept E:\n    import caught\nelse:\n    import then\n"
        "match 1:\n    case 1:\n        import matched\n"
    )
    found = set(imported(ast.parse(text), "rpcd_wireguard_uplink.routing"))
    assert inner_folders(found) == {"process", "model", "routing", "daemon"}
    assert {"socket", "a.b", "tried", "caught", "then", "matched"} <= found
