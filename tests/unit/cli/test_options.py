"""`wgctl uplink get`, `set`, `unset` over a file, without a service and without `uci`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.cli import options as commands
from rpcd_wireguard_uplink.cli.main import main
from rpcd_wireguard_uplink.config.option import Option
from rpcd_wireguard_uplink.config.options import SECTIONS
from rpcd_wireguard_uplink.config.parser import parse_config
from rpcd_wireguard_uplink.config.settings import Config
from rpcd_wireguard_uplink.uci import Store, Value
from tests.unit.config.samples import SAMPLES, full

FILE = """\
# the owner's
config wireguard-uplink
	option min_uplinks '3'
	list trusted_peer 'nodea'

config uplink 'wgup_a'
"""


class Router:
    """A folder of configuration and the command."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys

    def run(self, *words: str) -> tuple[int, str]:
        """The exit status, and what was printed."""
        status = main(["uplink", *words, "--config-dir", str(self.folder)])
        printed = self.capsys.readouterr()
        return status, (printed.out + printed.err).strip()

    def write(self, text: str) -> None:
        (self.folder / "wireguard-uplink").write_text(text)

    @property
    def text(self) -> str:
        return (self.folder / "wireguard-uplink").read_text()

    def config(self) -> Config:
        return parse_config(Store(str(self.folder)).read("wireguard-uplink").sections)


@pytest.fixture
def router(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Router:
    return Router(tmp_path, capsys)


def test_get(router: Router) -> None:
    assert router.run("get", "check_interval") == (0, "30"), "without a file the defaults"
    router.write(FILE)
    assert router.run("get", "min_uplinks") == (0, "3")
    assert router.run("get", "wireguard-uplink.uplink.min_uplinks") == (0, "3")
    assert router.run("get", "dns") == (0, "1.1.1.1\n2606:4700:4700::1111")
    assert router.run("get", "node_id") == (0, "")
    status, text = router.run("get")
    assert status == 0 and {"trusted_peer nodea", "broker.port", "wgup_a.weight 10"} <= {
        *text.splitlines()
    }
    status, text = router.run("get", "--json", "trusted_peer")
    assert json.loads(text) == {"trusted_peer": ["nodea"]}


def test_set_and_unset(router: Router) -> None:
    router.write(FILE)
    told = "A running service follows within 2 seconds."
    assert router.run("set", "min_uplinks", "4") == (0, f"min_uplinks is 4 now. {told}")
    assert router.run("set", "trusted_peer", "nodea", "nodeb")[0] == 0
    assert router.run("set", "local.limit_mbps", "20")[0] == 0
    assert router.run("set", "wgup_a.weight", "7")[0] == 0
    wanted = FILE.replace("'3'", "'4'").replace(
        "'nodea'\n", "'nodea'\n\tlist trusted_peer 'nodeb'\n"
    )
    assert router.text == (
        f"{wanted}\toption weight '7'\n\nconfig provider 'local'\n\toption limit_mbps '20'\n"
    )
    assert router.run("unset", "min_uplinks")[1].startswith("min_uplinks is 2 now, which is the")
    assert router.run("unset", "wgup_a.weight")[0] == 0
    assert router.run("unset", "broker.tls")[0] == 0
    assert "min_uplinks" not in router.text and "mqtt" not in router.text


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("set", "min_uplinks", "61"), 2, 'must be a whole number from 0 to 60, not "61"'),
        (("set", "trusted_peer", "a", "b c"), 2, "trusted_peer must be 1 to 64 letters, digits"),
        (("set", "failover_timeout", "1"), 2, "pace 'default' needs 2.2 s"),
        (("set", "broker.enabled", "1"), 2, "broker.host is missing: it is where the broker"),
        (("set", "min_uplink", "1"), 4, "did you mean min_uplinks?"),
        (("set", "wgup_b.weight", "1"), 4, "did you mean wgup_a.weight?"),
        (("set", "calls.peer", "nodea"), 4, "begins with a line `config anchor 'calls'`"),
        (("unset", "zzz"), 4, "`wgctl uplink get` lists them all"),
        (("get", "zzz"), 4, 'there is no option "zzz"'),
        (("set", "wgup_a.public_key", "hidden"), 2, "public_key must be a WireGuard key"),
    ],
)
def test_what_is_refused_changes_nothing(
    router: Router, words: tuple[str, ...], status: int, told: str
) -> None:
    router.write(FILE)
    found = router.run(*words)
    assert (found[0], told in found[1], "hidden" in found[1]) == (status, True, False)
    assert router.text == FILE


def test_a_file_that_is_no_uci_is_refused(router: Router) -> None:
    router.write("config wireguard-uplink 'half")
    for words in (("get",), ("set", "min_uplinks", "1"), ("unset", "min_uplinks")):
        status, told = router.run(*words)
        assert status == 2 and "wireguard-uplink" in told


def test_the_service_is_reloaded(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "init"
    script.write_text(f"#!/bin/sh\necho $1 >{tmp_path}/asked\n")
    script.chmod(0o755)
    monkeypatch.setattr(commands, "INIT_SCRIPT", str(script))
    assert router.run("set", "min_uplinks", "4") == (0, "min_uplinks is 4 now.")
    assert (tmp_path / "asked").read_text() == "reload\n"
    script.write_text("#!/bin/sh\nexit 1\n")
    assert "The service was not told: " in router.run("set", "min_uplinks", "5")[1]


ROWS = [
    pytest.param(kind.type, option, bad, id=f"{kind.type}.{option.name}-{bad}")
    for kind in SECTIONS.values()
    for option in kind.options
    for bad in SAMPLES[kind.type][option.name][1:]
]


@pytest.mark.parametrize(("kind", "option", "bad"), ROWS)
def test_the_command_of_each_fault_mends_it(
    router: Router, kind: str, option: Option, bad: Value
) -> None:
    section = full(kind, **{option.name: bad})
    with Store(str(router.folder)).edit("wireguard-uplink") as draft:
        draft.set_section(section.name, section.type, section.options)
    good = parse_config([full(kind)]).good
    [fault] = parse_config(Store(str(router.folder)).read("wireguard-uplink").sections, good).faults
    words = shlex.split(fault.mend)
    assert words[:2] == ["wgctl", "uplink"]
    if words[-1] == "VALUE":
        value = SAMPLES[kind][option.name][0]
        words[-1:] = [value] if isinstance(value, str) else value
    assert router.run(*words[2:])[0] == 0
    assert not router.config().faults
