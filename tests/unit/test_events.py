"""News reach whoever subscribed to their class, whatever another handler does."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rpcd_wireguard_uplink.events import Event, Events


@dataclass(frozen=True, slots=True)
class Came(Event):
    name: str


@dataclass(frozen=True, slots=True)
class Went(Event):
    name: str


def test_news_reach_those_who_subscribed(caplog: pytest.LogCaptureFixture) -> None:
    events, heard = Events(), []

    def fail(event: Came) -> None:
        raise KeyError(event.name)

    events.subscribe(Came, fail)
    events.subscribe(Came, lambda event: heard.append(event.name))
    events.publish(Came("a"))
    events.publish(Went("b"))
    assert heard == ["a"]
    assert "Came was not handled" in caplog.text
