"""Signatures: what is signed stays the same on its way, and nothing else passes for it."""

from __future__ import annotations

import base64
import builtins
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from rpcd_wireguard_uplink.errors import CommandFailed, ConfigError, InvalidArgument, NotSupported
from rpcd_wireguard_uplink.mesh.wire import signing
from rpcd_wireguard_uplink.mesh.wire.offer import parse_message
from rpcd_wireguard_uplink.mesh.wire.signing import Signer, can_sign, canonical_bytes, verify
from rpcd_wireguard_uplink.schema.json_message import parse_json_message
from tests.unit.fakes import key_of

OFFER: dict[str, Any] = {
    "type": "uplink_offer",
    "peer_id": "nodeA",
    "timestamp": "2026-02-28T12:00:00Z",
    "capabilities": {"bandwidth_mbps": 100, "latency_ms": 20.0, "available": True},
    "endpoint": {"host": "nodeA.example.com", "port": 51820, "public_key": key_of("a")},
    "sequence": 7,
    "from a newer release": {"list": [None, 0.1, "\u00e4\U0001f600"], "empty": {}},
}


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.load(str(tmp_path / "keys" / "identity"))


@pytest.fixture
def without_pynacl(mocker: MockerFixture) -> None:
    found = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "nacl":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(name, *arguments, **named)

    mocker.patch("builtins.__import__", refuse)


# --- what is signed


def test_a_signed_offer_is_verified_and_is_still_an_offer(signer: Signer) -> None:
    assert can_sign()
    signed = signer.sign(OFFER)
    assert verify(signed) == signer.key
    assert verify(json.dumps(signed)) == signer.key
    assert parse_message(signed).identity == signer.key
    assert {name: signed[name] for name in OFFER} == OFFER


def test_the_bytes_that_are_signed() -> None:
    # Written down, because a release that signs other bytes can't talk to this one any more.
    table = {"b": [1, 1.5, 20.0, True, None], "signature": "x", "a": {"\u00e4": "\n\U0001f600"}}
    assert canonical_bytes({**table, "identity": "k"}) == (
        b"rpcd-wireguard-uplink/message/1\n"
        b'{"a":{"\\u00e4":"\\n\\ud83d\\ude00"},"b":[1,1.5,20,true,null],"identity":"k"}'
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (20, 20.0),
        (0, -0.0),
        (0.1, 0.1 + 1e-12),
        ((1, 2), [1, 2]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (2**53 - 1, float(2**53 - 1)),
    ],
)
def test_values_that_count_as_the_same(one: Any, other: Any) -> None:
    assert canonical_bytes({"x": one}) == canonical_bytes({"x": other})


TEXTS = [("\u00e4", "a\u0308"), ("\ud800", "\\ud800"), (1, "1"), (None, "null")]


@pytest.mark.parametrize(
    ("one", "other"), [(1, True), (0, False), (0.1, 0.100001), ([], {}), ([1, 2], [2, 1]), *TEXTS]
)
def test_values_that_differ(one: Any, other: Any) -> None:
    assert canonical_bytes({"x": one}) != canonical_bytes({"x": other})


NO_NUMBERS = [float("nan"), float("inf"), -float("inf"), 2**53, -(2**53), 10**400, 1e300]


@pytest.mark.parametrize("value", [*NO_NUMBERS, b"bytes", {1: 2}, {1, 2}, object()])
def test_what_can_not_be_signed(signer: Signer, value: Any) -> None:
    for table in ({"x": value}, {"x": [{"y": value}]}):
        with pytest.raises(InvalidArgument) as caught:
            signer.sign(table)
        assert caught.value.code == "not_signable"


def test_nesting_has_an_end() -> None:
    table: dict[str, Any] = {}
    for _ in range(15):
        table = {"a": table}
    assert canonical_bytes(table)
    for _ in range(5000):
        table = {"a": table}
    with pytest.raises(InvalidArgument, match="nested too deeply"):
        canonical_bytes(table)


@pytest.mark.parametrize("options", [{"ensure_ascii": False}, {"sort_keys": True, "indent": 2}])
def test_reading_and_writing_on_the_way_changes_nothing(options: dict[str, Any]) -> None:
    texts = ["\u00e4", "\U0001f600", '"\\\n\0\x7f', ""]
    numbers = [0, -0.0, 1.5, 20.0, 2**53 - 1, 1 - 2**53, 1e-7, -123456.7890125, 1e15]
    table = {"z": {name: [None, True] for name in texts}, "a": [*texts, *numbers, [], {}]}
    text = json.dumps(table, **options).encode()
    assert canonical_bytes(parse_json_message(text)) == canonical_bytes(table)


@pytest.mark.parametrize("number", [0.1, -0.5, 1e-7, 1 / 3, 4999999.9999995, -1e12 + 0.25, 1e12])
def test_a_number_that_libubox_printed_is_the_same(number: float) -> None:
    assert canonical_bytes({"x": float(f"{number:f}")}) == canonical_bytes({"x": number})


# --- what is refused


@pytest.mark.parametrize(
    "members",
    [
        {"peer_id": "nodeB"},
        {"sequence": 8},
        {"sequence": "7"},
        {"extra": None},
        {"endpoint": {**OFFER["endpoint"], "port": 51821}},
        {"capabilities": {}},
        {"identity": key_of("another")},
        {"signature": ""},
        {"signature": "!" * 88},
        {"signature": "\u00e4" * 88},
        {"signature": "AQEB"},
        {"signature": "AQEB" * 21 + "AQ=="},
        {"identity": ""},
        {"identity": "AQEB"},
        {"identity": "\ud800"},
        # The key of order 1: with it, other libraries take one signature for every message.
        {"identity": base64.b64encode(b"\1" + bytes(31)).decode()},
        {"identity": base64.b64encode(bytes(32)).decode(), "signature": "A" * 86 + "=="},
        {
            "identity": base64.b64encode(b"\1" + bytes(31)).decode(),
            "signature": base64.b64encode(b"\1" + bytes(63)).decode(),
        },
    ],
)
def test_what_was_changed_or_forged(signer: Signer, members: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="signature is wrong") as caught:
        verify({**signer.sign(OFFER), **members})
    assert caught.value.code == "bad_signature"


def test_what_was_taken_out_and_what_another_signs_anew(signer: Signer, tmp_path: Path) -> None:
    signed = signer.sign(OFFER)
    thief = Signer.load(str(tmp_path / "thief"))
    assert verify(thief.sign(signed)) == thief.key != signer.key
    del signed["timestamp"]
    with pytest.raises(InvalidArgument, match="signature is wrong"):
        verify(signed)


@pytest.mark.parametrize("missing", ["identity", "signature"])
@pytest.mark.parametrize("value", [None, 1, ["x"]])
def test_an_unsigned_message(signer: Signer, missing: str, value: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        verify({**signer.sign(OFFER), missing: value})
    assert caught.value.code == "unsigned"


def test_a_key_in_another_spelling(signer: Signer) -> None:
    # Unused bits of the last character: the same 32 bytes, but not the same text.
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = signer.key[:-2] + letters[letters.index(signer.key[-2]) + 1] + "="
    assert base64.b64decode(other) == base64.b64decode(signer.key)
    signed = {**OFFER, "identity": other}
    proof = signer._secret.sign(canonical_bytes(signed)).signature
    with pytest.raises(InvalidArgument, match="signature is wrong"):
        verify({**signed, "signature": base64.b64encode(proof).decode()})


def test_a_signature_for_something_else(signer: Signer) -> None:
    signed = {**OFFER, "identity": signer.key}
    proof = signer._secret.sign(canonical_bytes(signed).removeprefix(signing.DOMAIN)).signature
    with pytest.raises(InvalidArgument, match="signature is wrong"):
        verify({**signed, "signature": base64.b64encode(proof).decode()})


def test_text_with_a_member_twice_is_refused_before_anything_is_checked(signer: Signer) -> None:
    text = json.dumps(signer.sign(OFFER))
    with pytest.raises(InvalidArgument, match="a member twice"):
        verify('{"sequence": 8,' + text[1:])


# --- the key on the disk


def test_the_seed_is_made_once_and_is_nobody_elses(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "identity"
    first = Signer.load(str(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(path.parent).st_mode) == 0o700
    assert os.listdir(path.parent) == ["identity"]
    assert Signer.load(str(path)).key == first.key
    assert Signer.load(str(tmp_path / "other")).key != first.key


def test_what_an_earlier_try_left_opens_nothing(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    left = tmp_path / "identity.new"
    left.write_text("half of something longer than a seed, that everybody may read")
    left.chmod(0o644)
    first = Signer.load(str(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert Signer.load(str(path)).key == first.key
    path.unlink()
    left.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandFailed, match="can't keep the signing key"):
        Signer.load(str(path))


def test_the_seed_is_shown_nowhere(tmp_path: Path) -> None:
    path = tmp_path / "identity"
    signer = Signer.load(str(path))
    seed = path.read_text().strip()
    shown = f"{signer!r} {signer} {json.dumps(signer.sign(OFFER))}"
    assert seed not in shown and base64.b64decode(seed).hex() not in shown
    assert repr(signer) == f"Signer({signer.key})"


@pytest.mark.parametrize("content", ["", "c2VjcmV0\n", "\xff\xfe", "A" * 5000])
def test_a_file_that_holds_no_seed_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "identity"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match="holds no signing key") as caught:
        Signer.load(str(path))
    assert "c2VjcmV0" not in str(caught.value)
    assert path.read_text(encoding="latin-1") == content


def test_a_crash_while_writing_leaves_no_half_seed(tmp_path: Path, mocker: MockerFixture) -> None:
    path = tmp_path / "identity"
    stopped = mocker.patch("os.replace", side_effect=OSError(5, "Input/output error"))
    with pytest.raises(CommandFailed, match="Input/output error"):
        Signer.load(str(path))
    assert not path.exists()
    mocker.stop(stopped)
    assert verify(Signer.load(str(path)).sign(OFFER))
    assert os.listdir(tmp_path) == ["identity"]


# --- a router without PyNaCl


@pytest.mark.usefixtures("without_pynacl")
def test_without_pynacl_nothing_is_signed_and_nothing_is_believed(tmp_path: Path) -> None:
    assert not can_sign()
    with pytest.raises(NotSupported, match="install PyNaCl") as caught:
        Signer.load(str(tmp_path / "identity"))
    assert caught.value.code == "no_signing"
    assert os.listdir(tmp_path) == []
    with pytest.raises(NotSupported) as caught:
        verify({**OFFER, "identity": key_of("x"), "signature": "A" * 86 + "=="})
    assert caught.value.code == "no_signing"
    with pytest.raises(InvalidArgument) as unsigned:
        verify(OFFER)
    assert unsigned.value.code == "unsigned"
