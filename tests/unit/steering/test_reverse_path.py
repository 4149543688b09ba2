"""Reverse path filtering: loose on WANs that are left, and as it was afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.steering import watchdog as module
from rpcd_wireguard_uplink.steering.watchdog import ReversePath


class Conf:
    """A /proc/sys/net/ipv4/conf of files."""

    def __init__(self, path: Path, **values: str) -> None:
        self.path = path
        for name, value in values.items():
            self.set(name, value)

    def set(self, name: str, value: str) -> None:
        (self.path / name).mkdir(parents=True, exist_ok=True)
        (self.path / name / "rp_filter").write_text(value + "\n")

    def get(self, name: str) -> str:
        return (self.path / name / "rp_filter").read_text().strip()


@pytest.fixture
def conf(tmp_path: Path, mocker: MockerFixture) -> Conf:
    mocker.patch.object(module, "CONF", str(tmp_path / "conf"))
    return Conf(tmp_path / "conf", all="0", wan="1", wwan="1", lan="1", open="0", loose="2")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return tmp_path / "run" / "rp_filter"


@pytest.fixture
def filtering(conf: Conf, saved: Path) -> ReversePath:
    return ReversePath(str(saved))


def test_strict_ones_are_loosened_and_given_back(
    conf: Conf, filtering: ReversePath, saved: Path
) -> None:
    assert filtering.loosen({"wan"}) == ""
    assert (conf.get("wan"), conf.get("wwan"), conf.get("lan")) == ("2", "1", "1")
    assert saved.read_text() == "wan 1\n"
    assert filtering.loosen({"wan", "wwan"}) == ""
    assert (conf.get("wan"), conf.get("wwan")) == ("2", "2")
    assert filtering.loosen({"wwan"}) == ""
    assert (conf.get("wan"), conf.get("wwan")) == ("1", "2")
    assert filtering.loosen(()) == ""
    assert (conf.get("wan"), conf.get("wwan")) == ("1", "1")
    assert not saved.exists()


def test_what_is_not_strict_is_left_alone(conf: Conf, filtering: ReversePath, saved: Path) -> None:
    assert filtering.loosen({"open", "loose"}) == ""
    assert (conf.get("open"), conf.get("loose")) == ("0", "2")
    assert not saved.exists()


def test_a_strict_all_counts_for_everyone(conf: Conf, filtering: ReversePath, saved: Path) -> None:
    """The kernel takes the larger of `all` and the device's."""
    conf.set("all", "1")
    assert filtering.loosen({"open", "loose"}) == ""
    assert (conf.get("open"), conf.get("loose"), conf.get("all")) == ("2", "2", "1")
    filtering.loosen(())
    assert (conf.get("open"), conf.get("loose")) == ("0", "2")


def test_a_killed_run_is_given_back_by_the_next(conf: Conf, saved: Path) -> None:
    ReversePath(str(saved)).loosen({"wan"})
    assert ReversePath(str(saved)).loosen({"wan"}) == ""
    assert saved.read_text() == "wan 1\n", "its own loose value is not taken for the owner's"
    ReversePath(str(saved)).loosen(())
    assert conf.get("wan") == "1"


def test_devices_that_are_gone(conf: Conf, filtering: ReversePath, saved: Path) -> None:
    assert filtering.loosen({"ppp0"}) == ""
    saved.parent.mkdir(exist_ok=True)
    saved.write_text("ppp0 1\nwan 1\ngarbage\n\nthree of them\n")
    assert filtering.loosen(()) == ""
    assert conf.get("wan") == "1"


def test_what_cannot_be_written_is_told(conf: Conf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = ReversePath(str(tmp_path / "file" / "rp_filter")).loosen({"wan"})
    assert told.startswith("rp_filter can't be set: ")
    assert conf.get("wan") == "1", "nothing is changed that could not be given back"


def test_strict_again_in_the_outage_is_loosened_again(conf: Conf, filtering: ReversePath) -> None:
    conf.set("all", "1")
    conf.set("wan", "0")
    filtering.loosen({"wan"})
    conf.set("wan", "1")
    filtering.loosen({"wan"})
    assert conf.get("wan") == "2"
    filtering.loosen(())
    assert conf.get("wan") == "1", "what the owner said last"


def test_what_the_owner_has_set_meanwhile_stays(conf: Conf, filtering: ReversePath) -> None:
    filtering.loosen({"wan"})
    conf.set("wan", "0")
    filtering.loosen(())
    assert conf.get("wan") == "0"
