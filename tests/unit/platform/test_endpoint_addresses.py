"""Which address a provider is tried at: all of a name's in turn, and the good ones after a boot."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.errors import CommandFailed
from rpcd_wireguard_uplink.model import Endpoint, Family, PeerCounters
from rpcd_wireguard_uplink.platform import endpoint_addresses
from rpcd_wireguard_uplink.platform.endpoint_addresses import EndpointAddresses
from rpcd_wireguard_uplink.warnings import Warnings

NAME = "wgup_a"
HOST = Endpoint("p.example", 7)
SIX, FOUR, OTHER = "2001:db8::7", "192.0.2.7", "198.51.100.7"


class Search:
    """One tunnel's search over a clock and a resolver that a test sets; `boot` begins anew."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys" / "endpoints.json"
        self.now_s = 100.0
        self.table: dict[str, Sequence[str]] = {"p.example": (SIX, FOUR)}
        self.patience: list[float] = []
        self.unreached: set[str] = set()
        self.ways: dict[str, str] = {}
        self.rx_bytes = 0
        self.boot()

    def boot(self) -> None:
        self.of = EndpointAddresses(
            str(self.path), self._way, Warnings(), lambda: self.now_s, self._look_up
        )
        self.rx_bytes = 0

    async def _look_up(self, host: str, timeout_s: float) -> Sequence[str]:
        self.patience.append(timeout_s)
        return self.table.get(host, ())

    def _way(self, address: str) -> str:
        return "" if address in self.unreached else self.ways.get(address, "wan")

    async def begin(self, endpoint: Endpoint = HOST) -> str:
        at = await self.of.begin(NAME, endpoint)
        assert self.of.current(NAME) == (at.host if at is not None else "")
        return self.of.current(NAME)

    async def tick(self, seconds: float) -> str:
        """Let time pass while nothing is heard; the address that is tried then."""
        self.now_s += seconds
        if self.of.due([NAME]):
            before = self.of.current(NAME)
            at = await self.of.another(NAME)
            assert self.of.current(NAME) == (before if at is None else at.host)
        return self.of.current(NAME)

    async def tried(self, seconds: float) -> list[str]:
        """The addresses that are tried in this time, in order."""
        found = [self.of.current(NAME)]
        for _ in range(int(seconds)):
            if (at := await self.tick(1.0)) != found[-1]:
                found.append(at)
        return found

    def hear(self, address: str, port: int = 7) -> None:
        """The tunnel receives something from there."""
        self.now_s += 1.0
        self.rx_bytes += 100
        live = str(Endpoint(address, port))
        self.of.saw({NAME: PeerCounters("k", live, 1.0, self.rx_bytes, 0)}, self.now_s)

    def kept(self) -> list[str]:
        rows = json.loads(self.path.read_text())
        return list(rows[NAME]["good"])


@pytest.fixture
def search(tmp_path: Path) -> Search:
    return Search(tmp_path)


async def test_a_dead_first_address_gives_way_within_seconds(search: Search) -> None:
    assert await search.begin() == SIX
    assert await search.tick(3.0) == SIX, "a handshake takes a round trip"
    assert await search.tick(2.0) == FOUR
    search.hear(FOUR)
    search.now_s += 100.0
    assert not [n for n in search.of.due([]) if n], "who is not stalled stays"


async def test_all_addresses_are_tried_and_the_best_one_rests(search: Search) -> None:
    search.table["p.example"] = (SIX, FOUR, OTHER)
    await search.begin()
    assert (await search.tried(60.0))[:6] == [SIX, FOUR, OTHER, SIX, FOUR, OTHER]
    rounds = await search.tried(600.0)
    assert set(rounds) == {SIX, FOUR, OTHER}
    assert len(rounds) <= 600 / (endpoint_addresses.LONGEST_REST_S + 2 * 8) * 3 + 3
    resting = [await search.tick(1.0) for _ in range(600)]
    assert resting.count(SIX) > 400


async def test_one_that_was_heard_is_left_after_a_new_silence_only(search: Search) -> None:
    await search.begin()
    search.hear(SIX)
    assert await search.tick(7.0) == SIX
    search.hear(SIX)
    assert await search.tick(7.0) == SIX
    assert await search.tick(2.0) == FOUR


async def test_a_name_with_a_new_address_is_followed(search: Search) -> None:
    search.table["p.example"] = (FOUR,)
    await search.begin()
    search.hear(FOUR)
    search.table["p.example"] = (OTHER,)
    assert (await search.tried(30.0))[:2] == [FOUR, OTHER]


async def test_what_no_route_leads_to_comes_last(search: Search) -> None:
    search.unreached = {SIX}
    assert await search.begin() == FOUR


async def test_without_a_resolver_the_last_good_address_is_used(search: Search) -> None:
    await search.begin()
    await search.tick(5.0)
    search.hear(FOUR)
    await search.of.save_if_due()
    assert search.kept() == [f"{FOUR}:7"]
    assert search.path.stat().st_mode & 0o777 == 0o600
    search.table.clear()
    search.boot()
    search.patience.clear()
    assert await search.begin() == FOUR
    assert search.patience == [endpoint_addresses.HASTY_LOOK_UP_S]


async def test_a_good_address_comes_first_while_the_name_has_it(search: Search) -> None:
    await search.begin()
    await search.tick(5.0)
    search.hear(FOUR)
    await search.of.save_if_due()
    search.boot()
    assert await search.begin() == FOUR
    search.table["p.example"] = (OTHER,)
    search.boot()
    assert await search.begin() == OTHER, "the name says otherwise"
    assert (await search.tried(20.0))[:2] == [OTHER, FOUR]


async def test_it_is_written_once_for_each_address_and_seldom(search: Search) -> None:
    search.table["p.example"] = (FOUR, OTHER)
    await search.begin()
    writes: list[int] = []
    for number in range(40):
        search.hear((FOUR, OTHER)[number % 2])
        before = os.stat(search.path).st_ino if search.path.exists() else 0
        await search.of.save_if_due()
        writes += [number] if os.stat(search.path).st_ino != before else []
    assert writes == [0, 1]
    for number in range(100):
        search.hear(f"203.0.113.{number}")
        await search.of.save_if_due()
    assert len(search.kept()) == endpoint_addresses.MOST_GOOD
    assert "203.0.113.1:7" in search.kept() and "203.0.113.9:7" not in search.kept()
    search.now_s += endpoint_addresses.WRITE_PAUSE_S
    await search.of.save_if_due()
    assert search.kept()[0] == "203.0.113.99:7"


async def test_what_the_configuration_says_is_not_kept(search: Search) -> None:
    await search.begin(Endpoint(FOUR, 7))
    search.hear(FOUR)
    await search.of.save_if_due()
    assert not search.path.exists()
    assert not search.of.due([NAME])


async def test_other_endpoints_of_the_provider_are_tried_too(search: Search) -> None:
    await search.begin(Endpoint(OTHER, 7))
    search.of.also(NAME, [Endpoint(OTHER, 7), Endpoint("p.example", 9)])
    assert await search.tried(19.0) == [OTHER, SIX, FOUR]
    search.hear(FOUR, 9)
    await search.of.save_if_due()
    assert search.kept() == [f"{FOUR}:9"]
    search.boot()
    search.table.clear()
    assert await search.begin(Endpoint(OTHER, 7)) == OTHER
    assert (await search.tried(10.0)) == [OTHER, FOUR], "before its provider was asked again"


async def test_another_endpoint_forgets_the_old_ones_addresses(search: Search) -> None:
    await search.begin()
    search.hear(SIX)
    assert await search.begin(Endpoint("q.example", 7)) == ""
    search.table["q.example"] = (OTHER,)
    search.now_s += 20.0
    assert await search.tick(1.0) == OTHER


async def test_an_address_that_was_heard_before_it_was_set_is_no_good_one(search: Search) -> None:
    """The service begins anew beside a tunnel that has received something in its life."""
    search.of.adopt(NAME, HOST, OTHER)
    search.hear(OTHER)
    await search.of.save_if_due()
    assert not search.path.exists()
    assert (await search.tried(10.0))[:2] == [OTHER, SIX]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\0",
        "[" * 5000,
        "[]",
        '{"wgup_a": 5}',
        '{"wgup_a": {"endpoint": "p.example:7", "good": 7}}',
        '{"wgup_a": {"endpoint": "p.example:7", "good": [7, null]}}',
        '{"wgup_a": {"endpoint": "p.example:7", "good": ["nonsense:::", "127.0.0.1:7", "x:y"]}}',
    ],
)
async def test_a_damaged_file_is_as_if_it_were_not_there(search: Search, text: str) -> None:
    search.path.parent.mkdir()
    search.path.write_text(text)
    search.table.clear()
    assert await search.begin() == ""
    search.table["p.example"] = (FOUR,)
    assert await search.tick(20.0) == FOUR
    search.hear(FOUR)
    await search.of.save_if_due()
    assert search.kept() == [f"{FOUR}:7"]


async def test_a_folder_that_can_not_be_written_is_told(search: Search) -> None:
    search.path.parent.write_text("a file where the folder should be")
    await search.begin()
    search.hear(SIX)
    with pytest.raises(CommandFailed, match=r"endpoints\.json can't be written"):
        await search.of.save_if_due()


async def test_names_are_looked_up_at_the_same_time_once(search: Search) -> None:
    await search.of.look_up_all({NAME: HOST, "wgup_b": Endpoint("q.example")})
    assert await search.begin() == SIX
    assert len(search.patience) == 2


LINK = Endpoint("172.16.0.2", 7)
BY_WAN, WANS = {("wan", Family.IPV4)}, ["wan"]


async def aside(search: Search) -> EndpointAddresses:
    """A search at a WAN's address whose provider is a neighbour too."""
    search.ways[LINK.host] = "mesh0"
    await search.begin(Endpoint(FOUR, 7))
    search.of.also(NAME, [LINK], [LINK.host])
    return search.of


async def test_a_way_in_doubt_is_left_and_taken_again(search: Search) -> None:
    of = await aside(search)
    assert of.other_ways(NAME, WANS) == [("mesh0", Family.IPV4)]
    assert of.step_aside(NAME, {("wan", Family.IPV6)}, WANS) is None, "the other family's"
    assert of.step_aside(NAME, BY_WAN, WANS) == LINK and of.is_at(NAME, LINK)
    assert of.step_aside(NAME, BY_WAN, WANS) is None, "it is there already"
    assert of.way_back(NAME) == (("wan", Family.IPV4), search.now_s)
    assert of.step_back(NAME) == Endpoint(FOUR, 7) and of.is_at(NAME, Endpoint(FOUR, 7))
    assert of.step_back(NAME) is None and of.way_back(NAME) is None


async def test_an_address_without_a_route_is_left_too(search: Search) -> None:
    of = await aside(search)
    search.unreached = {FOUR}
    assert of.step_aside(NAME, set(), WANS) == LINK


async def test_nothing_is_left_for_what_is_no_better(search: Search) -> None:
    of = await aside(search)
    assert of.step_aside(NAME, {*BY_WAN, ("mesh0", Family.IPV4)}, WANS) is None
    search.unreached = {LINK.host}
    assert of.step_aside(NAME, BY_WAN, WANS) is None
    assert of.step_aside("wgup_other", BY_WAN, WANS) is None
    assert of.other_ways("wgup_other", WANS) == []


async def test_an_address_of_a_network_of_ours_may_be_somebody_elses(search: Search) -> None:
    """A provider's lease names its LAN's, and many LANs are alike."""
    search.ways[LINK.host] = "lan"
    await search.begin(Endpoint(FOUR, 7))
    search.of.also(NAME, [LINK, Endpoint(OTHER, 7)])
    assert search.of.other_ways(NAME, WANS) == [("wan", Family.IPV4)]
    assert search.of.step_aside(NAME, BY_WAN, WANS) is None
    assert await search.tick(5.0) == LINK.host, "after a silence it is tried all the same"
    search.hear(LINK.host)
    search.hear(LINK.host)
    assert search.of.step_aside(NAME, {("lan", Family.IPV4)}, WANS) == Endpoint(FOUR, 7)
    assert ("lan", Family.IPV4) in search.of.other_ways(NAME, WANS), "there it has answered"


async def test_what_answers_meanwhile_is_not_kept_as_the_good_one(search: Search) -> None:
    of = await aside(search)
    search.hear(FOUR)
    of.step_aside(NAME, BY_WAN, WANS)
    search.hear(LINK.host)
    search.hear(LINK.host)
    await of.save_if_due()
    assert not search.path.exists()


async def test_a_silence_behind_it_goes_on_as_ever(search: Search) -> None:
    of = await aside(search)
    of.step_aside(NAME, BY_WAN, WANS)
    assert (await search.tried(9.0))[-1] == FOUR
    assert of.way_back(NAME) is None
