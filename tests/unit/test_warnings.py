"""One sentence a topic: set, cleared, replaced by prefix, caught from a failure."""

from __future__ import annotations

import pytest

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.warnings import Warnings


def test_a_topic_has_one_sentence_and_an_empty_one_clears_it() -> None:
    warnings = Warnings()
    warnings.set("mtu", "too small")
    warnings.set("mtu", "still too small")
    assert warnings.all() == ["still too small"]
    warnings.set("mtu", "")
    warnings.clear_topic("never set")
    assert warnings.all() == []


def test_the_topics_of_a_prefix_are_replaced_together() -> None:
    warnings = Warnings({"tunnel a": "1", "tunnel b": "2", "other": "3"})
    warnings.replace("tunnel ", {"b": "2 again", "c": "4"})
    assert warnings == {"tunnel b": "2 again", "other": "3", "tunnel c": "4"}


def test_an_expected_failure_becomes_a_warning_that_success_clears() -> None:
    warnings = Warnings()
    with warnings.catch("kernel", sentence="the kernel can't be read: {}".format):
        raise CommandFailed("ip is missing")
    assert warnings.all() == ["the kernel can't be read: ip is missing"]
    with warnings.catch("kernel"):
        pass
    assert warnings.all() == []
    with pytest.raises(KeyError), warnings.catch("kernel"):
        raise KeyError("a bug is no warning")
    with warnings.catch("file", OSError):
        raise FileNotFoundError("gone")
    assert warnings.all() == ["gone"]
