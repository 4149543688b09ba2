"""The lease pool: who gets which address, who is denied and why, what no sequence breaks."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpcd_wireguard_uplink.config.options import Consumer
from rpcd_wireguard_uplink.mesh.wire.lease import Denial, Deny, LeaseRequest
from rpcd_wireguard_uplink.provider.lease_pool import SESSION_S, LeasePool
from rpcd_wireguard_uplink.provider.plan import Lease
from tests.unit.fakes import key_of

POOL4 = ipaddress.IPv4Network("10.77.0.0/24")
POOL6 = ipaddress.IPv6Network("fd77::/64")
TERM_S = 100.0


def new_pool(most: int = 8, prefix: int = 24) -> LeasePool:
    return LeasePool(ipaddress.IPv4Network(f"10.77.0.0/{prefix}"), POOL6, most, TERM_S)


def ask(
    pool: LeasePool,
    peer: str,
    now_s: float = 0.0,
    key: str = "",
    avoid: tuple[str, ...] = (),
    **provider: Any,
) -> Lease | Denial:
    request = LeaseRequest(peer_id=peer, public_key=key_of(key or peer), avoid=avoid)
    return pool.request(request, now_s, **provider)


def granted(pool: LeasePool, peer: str, now_s: float = 0.0, key: str = "") -> Lease:
    answer = ask(pool, peer, now_s, key)
    assert isinstance(answer, Lease), answer
    return answer


def denied(pool: LeasePool, peer: str, code: Deny, **how: Any) -> str:
    """The sentence by which this is denied."""
    answer = ask(pool, peer, **how)
    assert isinstance(answer, Denial) and answer.code is code, answer
    return answer.error


def consumer(lease: Lease) -> Consumer:
    return Consumer("c", lease.peer_id, lease.public_key, lease.addresses)


# --- granting


def test_a_lease_has_the_same_place_in_both_pools_and_is_found() -> None:
    pool = new_pool()
    lease = granted(pool, "a", now_s=5.0)
    four, six = (ipaddress.ip_interface(text) for text in lease.addresses)
    place = int(four.ip) - int(POOL4.network_address)
    assert place == int(six.ip) - int(POOL6.network_address)
    assert 2 <= place <= 254
    assert (four.network.prefixlen, six.network.prefixlen) == (32, 128)
    assert (lease.peer_id, lease.public_key) == ("a", key_of("a"))
    assert lease.expires_s == 5.0 + TERM_S
    assert pool.gateways == ("10.77.0.1/24", "fd77::1/64")
    assert pool.by_key(key_of("a")) == pool.by_address(str(four.ip)) == lease
    assert pool.by_address(six.ip.exploded) == lease
    for address in ("10.77.0.1", "10.78.0.2", "fd78::2", "", "x", "fd77::ffff:2"):
        assert pool.by_address(address) is None
    assert pool.by_key(key_of("b")) is None


def test_the_same_request_again_renews() -> None:
    pool = new_pool()
    first, again = granted(pool, "a"), granted(pool, "a", now_s=60.0)
    assert again.addresses == first.addresses
    assert again.expires_s == 60.0 + TERM_S
    assert pool.leases == (again,)


def test_another_pool_gives_a_key_the_same_address() -> None:
    other = new_pool()
    granted(other, "b")
    assert granted(new_pool(), "a").addresses == granted(other, "a").addresses


def test_a_new_key_replaces_the_old_one() -> None:
    pool = new_pool()
    old, new = granted(pool, "a"), granted(pool, "a", key="a2")
    assert new.addresses == old.addresses
    assert pool.by_key(key_of("a")) is None
    assert pool.leases == (new,)
    assert granted(pool, "b", key="a").peer_id == "b"


def test_leases_are_in_the_order_of_their_addresses() -> None:
    pool = new_pool(most=50)
    for number in range(50):
        granted(pool, f"p{number}")
    order = [int(ipaddress.ip_interface(lease.addresses[0]).ip) for lease in pool.leases]
    assert order == sorted(order)


# --- denying


def test_a_key_of_another_peer_or_of_ours() -> None:
    pool = new_pool()
    lease = granted(pool, "a")
    told = denied(pool, "b", Deny.KEY_IN_USE, key="a")
    assert "remove the uplink and add it again" in told and key_of("a") not in told
    assert pool.leases == (lease,)
    told = denied(pool, "b", Deny.KEY_IN_USE, own_keys={key_of("b")})
    assert "the provider's own" in told
    assert isinstance(ask(pool, "b", own_keys={key_of("other")}), Lease)


@pytest.mark.parametrize(
    ("avoid", "named"),
    [
        ("10.77.0.0/24", "your network 10.77.0.0/24 overlaps the provider's pool 10.77.0.0/24"),
        ("10.0.0.0/8", "your network 10.0.0.0/8 overlaps"),
        ("10.77.0.128/25", "your network 10.77.0.128/25 overlaps"),
        ("10.77.0.9", "your network 10.77.0.9/32 overlaps"),
        ("10.77.0.9/24", "your network 10.77.0.0/24 overlaps"),
        ("fd00::/8", "your network fd00::/8 overlaps the provider's pool fd77::/64"),
        ("10.78.0.0/24", ""),
        ("fd78::/64", ""),
        ("0.0.0.0/0", ""),
        ("::/0", ""),
    ],
)
def test_networks_to_avoid(avoid: str, named: str) -> None:
    asked = ("192.168.1.0/24", avoid)
    if not named:
        assert isinstance(ask(new_pool(), "a", avoid=asked), Lease)
        return
    told = denied(new_pool(), "a", Deny.ADDRESS_CONFLICT, avoid=asked)
    assert named in told and f"set another pool{6 if ':' in avoid else 4}" in told


def test_the_own_networks_of_the_provider() -> None:
    told = denied(new_pool(), "a", Deny.ADDRESS_CONFLICT, own_networks=["10.77.0.7/16"])
    assert "the provider's own network 10.77.0.0/16 overlaps" in told
    assert isinstance(ask(new_pool(), "a", own_networks=["10.78.0.0/16"]), Lease)


@pytest.mark.parametrize("is_over", [False, True])
def test_what_was_given_here_is_no_conflict(is_over: bool) -> None:
    """A consumer may name the address of its tunnel to us, also after its lease is over."""
    pool = new_pool()
    lease = granted(pool, "a")
    if is_over:
        assert pool.expire(TERM_S) == [lease]
    given = (*lease.addresses, "10.77.0.1/32", "fd77::1/128")
    assert isinstance(ask(pool, "a", avoid=given), Lease)
    denied(pool, "b", Deny.ADDRESS_CONFLICT, avoid=given)


def test_full() -> None:
    pool = new_pool(most=2)
    granted(pool, "a")
    granted(pool, "b")
    assert "already serves 2 consumers" in denied(pool, "c", Deny.FULL)
    granted(pool, "a", now_s=1.0)
    granted(pool, "b", key="b2")
    assert pool.release(key_of("a"), 1.0) is not None
    granted(pool, "c")


@pytest.mark.parametrize(("prefix", "places"), [(30, 1), (29, 5), (31, 0), (32, 0)])
def test_no_address_is_left(prefix: int, places: int) -> None:
    pool = new_pool(most=20, prefix=prefix)
    for number in range(places):
        granted(pool, f"p{number}")
    assert f"10.77.0.0/{prefix}" in denied(pool, "one too many", Deny.NO_ADDRESS)


# --- ending


def test_released_and_revoked() -> None:
    pool = new_pool()
    released, revoked, other = (granted(pool, name) for name in "abc")
    assert pool.release(key_of("d"), 1.0) is None
    assert pool.release(key_of("a"), 1.0) == released
    assert pool.release(key_of("a"), 1.0) is None
    assert pool.revoke("b", 0.0) == [revoked]
    assert pool.revoke("b", 0.0) == []
    assert pool.leases == (other,)


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_is_heard_keeps_a_lease(is_kept: bool) -> None:
    pool = new_pool()
    lease = granted(pool, "a")
    assert pool.expire(TERM_S - 0.1) == []
    gone = pool.expire(TERM_S, {key_of("b"), *([key_of("a")] if is_kept else [])})
    assert gone == ([] if is_kept else [lease])
    assert [one.expires_s for one in pool.leases] == ([2 * TERM_S] if is_kept else [])


def test_an_outage_of_many_terms() -> None:
    """Nobody can ask, but the consumer is heard; then it is not."""
    pool = new_pool()
    granted(pool, "a")
    for now_s in range(0, 1000, 10):
        assert pool.expire(float(now_s), {key_of("a")}) == []
    assert len(pool.expire(1000.0 + SESSION_S)) == 1


# --- addresses that cool down


def test_a_left_address_cools_down() -> None:
    pool = new_pool(prefix=29)
    left = granted(pool, "a")
    pool.release(key_of("a"), 0.0)
    others = [granted(pool, name, now_s=1.0).addresses for name in "bcde"]
    assert left.addresses not in others
    assert granted(pool, "f", now_s=1.0).addresses == left.addresses, "every other one is taken"


def test_the_one_left_first_is_taken_first() -> None:
    pool = new_pool(prefix=29)
    leases = {name: granted(pool, name) for name in "abcde"}
    for now_s, name in enumerate("dbace"):
        pool.release(key_of(name), float(now_s))
    taken = [granted(pool, f"new {name}", now_s=5.0).addresses for name in "dbace"]
    assert taken == [leases[name].addresses for name in "dbace"]


def test_after_two_terms_an_address_is_free() -> None:
    free_at: list[float] = []
    for now_s in (2 * TERM_S - 1, 2 * TERM_S):
        pool = new_pool()
        left = granted(pool, "a")
        pool.release(key_of("a"), 0.0)
        # A key whose own place is the same one: it is the first choice once nobody else's.
        names = (f"n{number}" for number in range(5000))
        twin = next(n for n in names if granted(new_pool(), n).addresses == left.addresses)
        if granted(pool, twin, now_s).addresses == left.addresses:
            free_at.append(now_s)
    assert free_at == [2 * TERM_S]


@pytest.mark.parametrize("way", ["release", "revoke", "expire"])
def test_whoever_comes_back_has_the_same_address(way: str) -> None:
    pool = new_pool()
    left = granted(pool, "a")
    if way == "release":
        pool.release(key_of("a"), 1.0)
    elif way == "revoke":
        pool.revoke("a", 0.0)
    else:
        pool.expire(TERM_S)
    for number in range(7):
        granted(pool, f"p{number}", now_s=TERM_S)
    assert granted(pool, "a", now_s=TERM_S, key="new").addresses == left.addresses


# --- restoring


def test_after_a_restart_each_has_a_full_term() -> None:
    pool, later = new_pool(), new_pool()
    kept = [consumer(granted(pool, name)) for name in "abc"]
    assert later.restore(kept, 7.0) == []
    assert {(one.public_key, one.addresses) for one in later.leases} == {
        (one.public_key, one.addresses) for one in kept
    }
    assert {one.expires_s for one in later.leases} == {7.0 + TERM_S}
    for one in kept:
        assert granted(later, one.peer_id, now_s=8.0).addresses == one.addresses


@pytest.mark.parametrize(
    "addresses",
    [
        (),
        ("10.77.0.9/32",),
        ("10.77.0.9/32", "fd77::a/128"),
        ("10.78.0.9/32", "fd77::9/128"),
        ("10.77.0.1/32", "fd77::1/128"),
        ("10.77.0.0/32", "fd77::/128"),
        ("10.77.0.255/32", "fd77::ff/128"),
        ("10.77.0.9/24", "fd77::9/64"),
        ("x", "y"),
    ],
)
def test_what_has_no_place_here_is_left_out(addresses: tuple[str, ...]) -> None:
    pool = new_pool()
    stranger = Consumer("c", "a", key_of("a"), addresses)
    assert pool.restore([stranger], 0.0) == [stranger]
    assert pool.leases == ()


def test_no_two_are_restored_to_one_place_key_or_peer() -> None:
    pool = new_pool()
    first = Consumer("1", "a", key_of("a"), ("10.77.0.9/32", "fd77::9/128"))
    clashes = [
        Consumer("2", "b", key_of("b"), first.addresses),
        Consumer("3", "c", first.public_key, ("10.77.0.10/32", "fd77::a/128")),
        Consumer("4", "a", key_of("d"), ("10.77.0.11/32", "fd77::b/128")),
    ]
    assert pool.restore([first, *clashes], 0.0) == clashes
    assert len(pool.leases) == 1


def test_more_than_the_limit_are_restored_and_count() -> None:
    pool, smaller = new_pool(), new_pool(most=2)
    smaller.restore([consumer(granted(pool, name)) for name in "abc"], 0.0)
    assert len(smaller.leases) == 3
    denied(smaller, "d", Deny.FULL)


# --- what no sequence breaks

STEP = st.tuples(
    st.sampled_from(["request", "release", "revoke", "expire", "restart"]),
    st.integers(0, 5),
    st.integers(0, 7),
    st.floats(0.0, 150.0),
)


@given(st.lists(STEP, max_size=60))
def test_what_always_holds(steps: list[tuple[str, int, int, float]]) -> None:
    pool, now_s = new_pool(most=4, prefix=28), 0.0
    left: dict[str, tuple[str, float]] = {}  # address -> whose it was, when it was left
    for what, peer, key, pause_s in steps:
        now_s += pause_s
        before = {one.addresses[0]: one for one in pool.leases}
        name = f"p{peer}"
        if what == "request":
            answer = ask(pool, name, now_s, key=f"k{key}")
            if isinstance(answer, Denial):
                assert answer.code in (Deny.FULL, Deny.KEY_IN_USE)
                assert pool.leases == tuple(before.values())
            else:
                assert answer.expires_s == now_s + TERM_S
                owner, since_s = left.pop(answer.addresses[0], (name, now_s))
                # A /28 has 13 places for at most 4 leases: there is always another one.
                assert owner == name or now_s - since_s >= 2 * TERM_S
        elif what == "release":
            pool.release(key_of(f"k{key}"), now_s)
        elif what == "revoke":
            pool.revoke(name, now_s)
        elif what == "expire":
            alive = {key_of(f"k{key}")} if pause_s < SESSION_S else set()
            assert all(one.expires_s <= now_s for one in pool.expire(now_s, alive))
            assert all(one.expires_s > now_s for one in pool.leases)
        else:
            fresh = new_pool(most=4, prefix=28)
            assert fresh.restore([consumer(one) for one in pool.leases], now_s) == []
            pool, left = fresh, {}
        now_leased = {one.addresses[0] for one in pool.leases}
        left |= {a: (one.peer_id, now_s) for a, one in before.items() if a not in now_leased}
        assert_sound(pool)


def assert_sound(pool: LeasePool) -> None:
    leases = pool.leases
    assert len(leases) <= pool.max_consumers
    for distinct in (
        {one.peer_id for one in leases},
        {one.public_key for one in leases},
        {one.addresses[0] for one in leases},
        {one.addresses[1] for one in leases},
    ):
        assert len(distinct) == len(leases)
    for one in leases:
        four = ipaddress.ip_interface(one.addresses[0]).ip
        assert four in list(pool.pool4.hosts())[1:]
        assert pool.by_address(str(four)) == one
