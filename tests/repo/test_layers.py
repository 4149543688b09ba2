"""Imports go down only: the order of the layers, and what single layers must not know."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.repo import PACKAGE, ROOT

LAYERS = (
    *("lean", "errors", "quoting", "model", "peering", "endpoints", "schemas", "validation"),
    *("json_message", "messages", "lease_messages"),
    *(
        "ubus",
        "peering_schemas",
        "choice_schemas",
        "calls",
        "older_methods",
        "methods",
        "columns",
        "choice_tables",
        "tables",
        "process",
        "resolver",
        "steady",
        "linkwatch",
        "iproute",
        "system",
        "uci",
        "wireguard",
        "system",
        "signing",
    ),
    *("mesh", "mesh_faults", "trust", "approvals", "leases", "usage", "mesh_http"),
    *("pace", "quality", "budget", "targets", "health", "second_opinion", "mtu_search"),
    *("capacity", "selection", "failover", "reconcile"),
    *("options", "peer_config", "config", "wan_names", "probe", "service_probe"),
    *("platform", "paths", "landscape", "mtu_watch", "routing", "steering", "evidence"),
    *("candidates", "monitor", "tunnel_test"),
    *(
        "captive",
        "carriers",
        "offers",
        "shaping",
        "provider_rules",
        "provider",
        "state",
        "usage_file",
        "journal",
        "intake",
    ),
    *(
        "egress",
        "view",
        "explain",
        "simulation",
        "drill",
        "uplinks",
        "service",
        "reach",
        "serving",
        "bandwidth",
        "offering",
        "leasing",
    ),
    *("peers", "delivery", "gate", "exchange", "peer_service", "choice_service"),
    *("older", "dashboard", "doctor", "backlog", "hooks", "post", "webhook", "metrics"),
    "uninstall",
    *("daemon", "live", "cli", "export", "__main__"),
)
"""Lowest first. A new module takes its place here when it is made."""

ONLY = {
    "ubus": {"errors"},
    "errors": set(),
    "doctor": set(LAYERS[: LAYERS.index("platform")]),
    "cli": {*LAYERS[: LAYERS.index("process")], "doctor", "live"},
    "live": set(LAYERS[: LAYERS.index("process")]),
    "post": set(),
}
"""Layers that know less than the order allows: the bus nothing of uplinks, wgctl only the bus and
the preflight, which must work without a service.
"""

PURE = (
    *(
        "errors",
        "quoting",
        "model",
        "peering",
        "endpoints",
        "trust",
        "leases",
        "usage",
        "reach",
        "mesh_faults",
    ),
    *("pace", "quality", "budget", "targets", "health", "second_opinion", "mtu_search"),
    *("capacity", "selection", "failover", "reconcile"),
)
IMPURE = {"asyncio", "random", "selectors", "signal", "socket", "subprocess", "threading", "time"}


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(text: str, package: str) -> Iterator[str]:
    """The full names of the modules that a module of `package` imports, wherever it does so."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            whole = ".".join(part for part in (above, node.module) if part)
            if whole == PACKAGE.name:
                yield from (f"{whole}.{alias.name}" for alias in node.names)
            else:
                yield whole


def names_in(path: Path) -> set[str]:
    """What a file of ours imports."""
    package = ".".join(path.parent.relative_to(ROOT).parts)
    return set(imported(path.read_text(encoding="utf-8"), package))


def inner_layers(names: set[str]) -> set[str]:
    """The layers of ours among these modules."""
    split = (name.split(".") for name in names)
    return {parts[1] for parts in split if parts[0] == PACKAGE.name and len(parts) > 1}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    layer = layer_of(path)
    if layer == "__init__":
        assert not inner_layers(names_in(path)), "importing the package must not load its parts"
        return
    assert layer in LAYERS, f"{layer} has no place in LAYERS yet"
    allowed = ONLY.get(layer, set(LAYERS[: LAYERS.index(layer)])) | {layer, "__version__"}
    assert inner_layers(names_in(path)) <= allowed, (
        f"{path.name} imports a layer that is not below it"
    )


@pytest.mark.parametrize("layer", PURE)
def test_decisions_have_no_clock_and_no_input(layer: str) -> None:
    path = PACKAGE / f"{layer}.py"
    if not path.exists():
        pytest.skip(f"{layer} is not made yet")
    assert not {name.split(".")[0] for name in names_in(path)} & IMPURE


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_wait_can_lose_a_cancellation(path: Path) -> None:
    """asyncio.wait_for does before Python 3.12, where what it waits for ends in the same moment:
    a task that was to end goes on, and so does who waits for its end.
    """
    assert "asyncio.wait_for" not in path.read_text(encoding="utf-8"), "use asyncio.timeout"


def test_the_scan_sees_every_form_of_import() -> None:
    text = (
        "import socket\nfrom .. import process\nfrom ..model import Uplink\nfrom . import lane\n"
        "def f():\n    from rpcd_wireguard_uplink import daemon\n    import a.b as c\n"
    )
    found = set(imported(text, "rpcd_wireguard_uplink.routing"))
    assert inner_layers(found) == {"process", "model", "routing", "daemon"}
    assert {"socket", "a.b"} <= found


def test_method_table_loads_without_asyncio() -> None:
    code = "import rpcd_wireguard_uplink.methods, sys; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert "rpcd_wireguard_uplink.methods" in loaded
    assert "asyncio" not in loaded
    assert "rpcd_wireguard_uplink.service" not in loaded
