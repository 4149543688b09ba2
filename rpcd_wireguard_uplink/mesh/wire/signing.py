"""Ed25519 signatures of messages that pass through others: gossip and MQTT.

Owns the bytes that are signed, the router's own signing key and the check of a signature. PyNaCl
does the arithmetic; it is optional, and loaded when the first message is signed or checked. Knows
nothing of peers: whose key it is, and whether it is the one that was pinned, is decided elsewhere.
A signature does not age: a message that is sent once more verifies once more, and OfferBook refuses
it by its sequence.
"""

from __future__ import annotations

import binascii
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import CommandFailed, ConfigError, InvalidArgument, NotSupported
from ...model import is_key
from ...reasons import because, of_system
from ...schema.json_message import DEEPEST, parse_json_message
from ...system.files import UnusableFile, read_bytes, replace_file

if TYPE_CHECKING:
    from nacl.signing import SigningKey

# A signature made for anything else never counts as one of a message, and the other way round.
DOMAIN = b"rpcd-wireguard-uplink/message/1\n"
SIGNATURE_BYTES = 64
LARGEST_NUMBER = 2**53 - 1
DECIMALS = 6


def can_sign() -> bool:
    try:
        import nacl.signing  # noqa: F401
    except ImportError:
        return False
    return True


class Signer:
    """This router's signing key: `key` is its public half in base64, the other never leaves."""

    __slots__ = ("_secret", "key")

    def __init__(self, secret: SigningKey) -> None:
        self._secret = secret
        self.key = _base64(bytes(secret.verify_key)).decode()

    def __repr__(self) -> str:
        return f"Signer({self.key})"

    @classmethod
    def load(cls, path: str) -> Signer:
        """Return the signer whose seed is kept in a file (0600); the seed is made if none is.

        It is on the disk when this returns, which can take a while on flash. Raises NotSupported
        (code "no_signing") without PyNaCl, ConfigError where the file holds no seed, CommandFailed
        where it can't be read or written.
        """
        _require_signing()
        from nacl.signing import SigningKey

        try:
            seed = _read_seed(path)
            if seed is None:
                seed = os.urandom(32)
                # Peers pin this key, so a power cut must not change it.
                replace_file(path, _base64(seed) + b"\n")
        except UnusableFile as error:
            raise CommandFailed(because("signing_unusable", error)) from error
        except OSError as error:
            raise CommandFailed(because("signing_unkept", path, of_system(error))) from error
        return cls(SigningKey(seed))

    def sign(self, table: Mapping[str, Any]) -> dict[str, Any]:
        """Return the message with `identity` and `signature`, in place of any that it had.

        Raises InvalidArgument (code "not_signable") for what canonical_bytes refuses.
        """
        signed = {**table, "identity": self.key}
        signature = self._secret.sign(canonical_bytes(signed)).signature
        return {**signed, "signature": _base64(signature).decode()}


def verify(raw: Mapping[str, Any] | str) -> str:
    """Return the key that a message, as it came, is signed by: its `identity`.

    Any key can sign; the caller compares. Raises NotSupported (code "no_signing") without PyNaCl,
    InvalidArgument with code "unsigned", "bad_signature" or "not_signable", and for text what
    parse_json_message raises.
    """
    table = parse_json_message(raw.encode(errors="surrogatepass")) if isinstance(raw, str) else raw
    identity, signature = table.get("identity"), table.get("signature")
    if not isinstance(identity, str) or not isinstance(signature, str):
        raise InvalidArgument(
            "the message is not signed: it must carry identity and signature", code="unsigned"
        )
    _require_signing()
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    signed = canonical_bytes(table)
    try:
        # Keys are compared as text, so only the one canonical form counts.
        if not is_key(identity):
            raise ValueError("no key")
        proof = binascii.a2b_base64(signature, strict_mode=True)
        if len(proof) != SIGNATURE_BYTES:
            raise ValueError("no signature")
        VerifyKey(binascii.a2b_base64(identity)).verify(signed, proof)
    except (BadSignatureError, binascii.Error, ValueError) as error:
        raise InvalidArgument(
            "the message's signature is wrong: it was changed on its way, or is forged",
            code="bad_signature",
        ) from error
    return identity


def canonical_bytes(table: Mapping[str, Any]) -> bytes:
    """Return what is signed: the domain, and as ASCII JSON all members but `signature`, sorted.

    It stays the same when a message is read and written again on its way: 20 and 20.0 are one
    number, and six decimals count, which is what libubox prints (blobmsg_format_element,
    blobmsg_json.c). Raises InvalidArgument (code "not_signable") for NaN, numbers beyond 2^53 - 1,
    values that JSON has not, and nesting deeper than 16 levels.
    """
    members = {name: value for name, value in table.items() if name != "signature"}
    plain = _canonical(members, DEEPEST)
    return DOMAIN + json.dumps(plain, sort_keys=True, separators=(",", ":")).encode("ascii")


def _canonical(value: Any, levels: int) -> Any:
    if value is None or isinstance(value, bool | str):
        return value
    # A comparison with NaN is always false.
    if isinstance(value, int | float) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        rounded = round(value, DECIMALS)
        return int(rounded) if rounded == int(rounded) else rounded
    if isinstance(value, Mapping) and levels and all(isinstance(name, str) for name in value):
        return {name: _canonical(member, levels - 1) for name, member in value.items()}
    if isinstance(value, list | tuple) and levels:
        return [_canonical(member, levels - 1) for member in value]
    raise InvalidArgument(
        "the message can't be signed: it is nested too deeply, or has a number or a value that "
        "JSON can't carry unchanged",
        code="not_signable",
    )


def _require_signing() -> None:
    if not can_sign():
        raise NotSupported(
            "this router can't check or make signatures: install PyNaCl", code="no_signing"
        )


def _read_seed(path: str) -> bytes | None:
    """The seed, None where there is no file."""
    found = read_bytes(path)
    if found is None:
        return None
    text = found.decode("ascii", "replace").strip()
    if not is_key(text):
        raise ConfigError(because("no_seed", path))
    return binascii.a2b_base64(text)


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)
