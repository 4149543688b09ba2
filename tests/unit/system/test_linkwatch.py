"""Reading rtnetlink: hand-made messages, what a kernel sent, and a socket on the loop."""

from __future__ import annotations

import asyncio
import base64
import struct
import zlib
from collections.abc import Iterator

import pytest

from rpcd_wireguard_uplink.system.netlink import parse_messages
from rpcd_wireguard_uplink.system.rtnetlink import LinkEvent, LinkWatch, link_events

NEWLINK, DELLINK, NEWADDR, NEWROUTE = 16, 17, 20, 24
UP, LOWER_UP = 0x1, 0x10000

RECORDED = (
    b"c-rk+O;6NN6g_>NG6fNe!GM@3Mxz)P4rpB9_yOo{7Pup<h=IgJBbtEgE?xK!+z?$zqAL@&h9BS(5*Pje<H8jSH%z"
    b"_v_D!Z!+ks)2fe!B`Gq=rq_v5v<=j7ei+1hdd4^gq8=->AE2*|_6;yB>qG=ABDL$gVd9+24%W<<Nl;itoT0*~bU7"
    b"J`8Fc|CqX>w8*XlsGQN^t|g5+r^~T543)$^<Df8@}!G;{<QWpDt;VX(&v{YZx=W9c|p#*BrDdBb>7!R_t5Cm4S)K"
    b"Z%g2g*vjE>Qgiet~x{IxrUfiH-s^r+i8FbTieY3RkEW8Jf)J!j3{g=zHSC>|oP_Revj^@9WyA!Rx+8-jiS@GzWa}"
    b"CFZ{jaGW$}@~KNcnONe0q_`*ji|_qu0jO$aNmildEQ}zv|zg?1ulul6B9i>N6I#S@@lvtCf(ql`@`mef&Rn>W+)#"
    b"Ld9$4{NwX(TQ;u3NF!3D8b9dMHke@PP*t*ALEoPCIo$VinDU)ORJR4yttzS)vVrQBMs=l8-P$LrPizmp|M0`0dMi"
    b";~WfawS<_)SF$rh?(Wrfa$8SJ$5kdr`>GkF^O5lA#kbW~h6u|hPrC2H@UQ62Im@_$r%Sjs9aKaN_~QOo|}MNMb08"
    b"858oBnIm;3}zUta~aI9FxVHvV1~i6%wV}@7)%|M!E((oSff#$)XrKBgN=7KgPG2n>8zzOnCYw;$sB`~O5zRp*k?c"
    b"gJO`*@Un-F+d=tuYshU|=_a`oVvFXwX7zAIb`uT@qF}Al-qs)h873IUK=e*Y8ek#Fwn0althS#(;_F*ltckP7OLE"
    b"Ji>-Bg|TMheIKy^$SbH+4XEi=*p&OlOJRDu_DYqWlfJbvC<I#!7YathbId`=ge<YOK^?-u2kcY8Si7PU&1^q#Zk@"
    b"gsAP<70%Am-`SeAZtkks`W80)piCGaWp94E`Nzz@DIQPN;l%K*8&Z3g$NgK1MmaI9XK6Um^ej!!(r{wdI58d7d8a"
    b"d#g6isopnBTf$ResIu~R!y9R}46svA^4;+>9%)_v8GzSHs0!Y?=ycRF@#eTD6zpiCIQpPf$F1&w-az6%<?DvfkO)"
    b"%rTk8%W`2j$`=Q@bh8ubGPvG@~aR_MjFDL<VscXN<E=Hb5p6ur&9j`UXP%y"
)
"""What Linux 6 sent while a veth pair (3 and 2) came up, got an address, lost its carrier by its
other end (2) going down, and was deleted; each datagram behind its length."""


def message(kind: int, body: bytes, length: int | None = None) -> bytes:
    size = 16 + len(body) if length is None else length
    padding = b"\0" * (-len(body) % 4)
    return struct.pack("=IHHII", size, kind, 0, 0, 0) + body + padding


def link(index: int, flags: int, kind: int = NEWLINK, attributes: bytes = b"") -> bytes:
    return message(kind, struct.pack("=BxHiII", 0, 1, index, flags, 0) + attributes)


def parse_events(data: bytes) -> list[LinkEvent | None]:
    return list(link_events(message for _, message in parse_messages(data)))


def recorded() -> Iterator[bytes]:
    data = zlib.decompress(base64.b85decode(RECORDED))
    while data:
        size = int.from_bytes(data[:2], "big")
        yield data[2 : 2 + size]
        data = data[2 + size :]


@pytest.mark.parametrize(
    ("flags", "carrier"),
    [(UP | LOWER_UP, True), (UP, False), (LOWER_UP, False), (0, False), (0x11043, True)],
)
def test_carrier_needs_both_flags(flags: int, carrier: bool) -> None:
    assert parse_events(link(7, flags)) == [LinkEvent(7, carrier, False)]


def test_a_link_that_goes() -> None:
    assert parse_events(link(7, UP | LOWER_UP, DELLINK)) == [LinkEvent(7, True, True)]


def test_several_messages_in_one_datagram() -> None:
    data = link(1, UP, attributes=b"abc") + message(NEWADDR, b"12345") + link(2, 0)
    assert parse_events(data) == [
        LinkEvent(1, False, False),
        None,
        LinkEvent(2, False, False),
    ]


@pytest.mark.parametrize(("table", "events"), [(254, [None]), (255, []), (0, []), (51, [])])
def test_only_routes_of_the_main_table_count(table: int, events: list[None]) -> None:
    body = struct.pack("=BBBBBBBBI", 2, 0, 0, 0, table, 4, 0, 1, 0)
    assert parse_events(message(NEWROUTE, body)) == events


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 15,
        b"\0" * 64,
        message(NEWLINK, b"", length=15),
        message(NEWLINK, b"1234", length=4096),
        message(NEWLINK, b"short"),
    ],
)
def test_what_is_cut_off_or_nonsense_is_no_event(data: bytes) -> None:
    assert parse_events(data) == []


def test_what_a_kernel_sent() -> None:
    events = [event for data in recorded() for event in parse_events(data)]
    links = [event for event in events if event is not None]
    assert events.count(None) == 9
    assert [(e.index, e.carrier) for e in links[:2]] == [(2, False), (3, True)]
    assert LinkEvent(2, True, False) in links
    assert LinkEvent(3, False, False) in links[4:]
    assert links[-2:] == [LinkEvent(3, False, True), LinkEvent(2, False, True)]


def test_any_cut_of_a_recording_is_read_without_an_error() -> None:
    data = next(recorded())
    whole = parse_events(data)
    for end in range(0, len(data), 7):
        assert parse_events(data[:end]) in ([], whole)


async def test_it_listens_and_stops() -> None:
    """A real socket: joining the groups must be allowed to anybody."""
    watch = LinkWatch(lambda event: None, lambda: None)
    watch.start()
    await asyncio.sleep(0)
    watch.stop()
    watch.stop()
