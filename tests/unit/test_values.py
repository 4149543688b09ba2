"""`values.dataclass` beside the one of Python, which it must not differ from in what is used."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import types
from dataclasses import field, fields, replace
from typing import Any

import pytest

from rpcd_wireguard_uplink import values
from rpcd_wireguard_uplink.values import dataclass


class Plain:
    name: str
    numbers: tuple[int, ...] = ()
    seen: int = field(default=0, compare=False)
    secret: str = field(default="", repr=False)
    heard: list[str] = field(default_factory=list, compare=False)
    counts: dict[str, int] = field(init=False, default_factory=dict, compare=False)
    rank: int = field(init=False, default=3)
    length: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", len(self.name))


def made(maker: Any, **given: bool) -> Any:
    return maker(**given)(type("Plain", (Plain,), dict(Plain.__dict__)))


def refusal(kind: Any, *words: object) -> str:
    with pytest.raises(TypeError) as caught:
        kind(*words)
    return str(caught.value).removeprefix(f"{kind.__name__}.")


WAYS: list[dict[str, bool]] = [
    *({}, {"slots": True}, {"frozen": True}, {"frozen": True, "slots": True}),
    *({"eq": False, "repr": False}, {"frozen": True, "eq": False}),
]


@pytest.mark.parametrize("given", WAYS, ids=str)
def test_as_the_original(given: dict[str, bool]) -> None:
    ours, theirs = made(dataclass, **given), made(dataclasses.dataclass, **given)
    told = []
    for kind in (ours, theirs):
        one, same = kind("a", (1,), secret="s"), kind("a", (1,), seen=9, secret="s")
        is_hashable = kind.__hash__ is not None
        told.append(
            (
                one == same,
                one != kind("b"),
                one == "a",
                is_hashable and hash(one) == hash(same),
                repr(one) if given.get("repr", True) else "",
                replace(one, name="c").name,
                values.replace(one, name="c", seen=5) == replace(one, name="c", seen=5),
                [each.name for each in fields(kind)],
                copy.copy(one).numbers,
                (one.heard, one.counts, one.rank, one.length, kind("d", heard=["x"]).heard),
                one.heard is not same.heard,
                [refusal(kind, *words) for words in ((), ("a", (), 1, "", [], 2))],
                kind.__qualname__,
                kind.__match_args__,
                "__dict__" in dir(one) if not given.get("slots") else "",
            )
        )
    assert told[0] == told[1]


@dataclass(frozen=True, slots=True)
class Kept:
    name: str


@dataclass(frozen=True, slots=True)
class Own:
    name: str

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 7

    def __repr__(self) -> str:
        return "own"


def test_what_a_class_says_itself_stays() -> None:
    assert Own("a") == Own("b") and hash(Own("a")) == 7 and repr(Own("a")) == "own"


@dataclass(slots=True)
class Longer(Kept):
    more: int = 2


def test_the_fields_of_a_base_come_first() -> None:
    made = Longer("a", 5)
    assert (made.name, made.more, Longer("b").more) == ("a", 5, 2)
    assert [each.name for each in fields(Longer)] == ["name", "more"]
    assert replace(made, name="c") == Longer("c", 5) != Longer("c", 6)
    assert repr(made) == "Longer(name='a', more=5)"


def test_one_is_equal_when_it_is_read_back_and_never_to_another_class() -> None:
    assert pickle.loads(pickle.dumps(Kept("a"))) == Kept("a")
    assert Kept("a") != made(dataclass, frozen=True)("a")


def test_what_is_never_made_costs_nothing() -> None:
    kind = made(dataclass)
    assert not isinstance(vars(kind)["__init__"], types.FunctionType)
    kind("a")
    assert isinstance(vars(kind)["__init__"], types.FunctionType)
