"""`values.dataclass` beside the one of Python, which it must not differ from in what is used."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field, fields, replace
from typing import Any

import pytest

from rpcd_wireguard_uplink.values import dataclass


class Plain:
    name: str
    numbers: tuple[int, ...] = ()
    seen: int = field(default=0, compare=False)
    secret: str = field(default="", repr=False)


def made(maker: Any, **given: bool) -> Any:
    return maker(**given)(type("Plain", (Plain,), dict(Plain.__dict__)))


WAYS = [
    {},
    {"slots": True},
    {"frozen": True, "slots": True},
    {"frozen": True},
    {"eq": False, "repr": False},
    {"frozen": True, "eq": False},
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
                [each.name for each in fields(kind)],
                copy.copy(one).numbers,
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


def test_one_is_kept_and_read_back() -> None:
    assert pickle.loads(pickle.dumps(Kept("a"))) == Kept("a")


def test_another_class_is_never_equal() -> None:
    assert Kept("a") != made(dataclass, frozen=True)("a")
