"""What the rest of the service needs of the kernel, so that tests can give something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ..model import Family
from .netlink import Events, Message
from .rtnetlink import Device, Route, Rule


class RoutingKernel(Protocol):
    """Devices, routes and rules, as rtnetlink.Kernel gives them."""

    @property
    def port(self) -> int:
        """By which news of our own changes are told from others'; 0 where they can't be."""

    def devices(self) -> list[Device]:
        """Every network device."""

    def addresses(self) -> list[tuple[int, str, bool]]:
        """Every global address: index, address with its length, whether it is in force."""

    def routes(self, family: Family) -> list[Route]:
        """The routes of all tables but local ones."""

    def rules(self, family: Family) -> list[Rule]:
        """The policy rules in order; none where the family is off."""

    def device_towards(self, address: str, mark: int) -> int:
        """The index of the device that a packet with that mark leaves by; 0 where none does."""

    def set_mtu(self, index: int, mtu: int) -> int:
        """Set a device's MTU in bytes; the errno."""

    def change(self, messages: Sequence[Message]) -> list[int]:
        """Carry out changes in order; the errno of each."""

    def listen(self, on_news: Callable[[], None]) -> Events | None:
        """A socket that hears news; None where there is none to hear."""

    def listen_to_tables(self, on_news: Callable[[], None]) -> Events | None:
        """A socket that hears of nftables; None where there is none."""


class Connections(Protocol):
    """Connection tracking, as conntrack.ConnectionTracking gives it."""

    def delete_marked(self, family: Family, mark: int, mask: int) -> None:
        """Delete the family's connections whose mark is that."""
