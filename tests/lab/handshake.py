"""The first message of a WireGuard handshake, with whatever timestamp a test wants.

From WireGuard's paper, section 5.4.2. A provider that has seen it refuses the key's owner until its
clock is past that time, as it refuses a router that booted with a clock of the past.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import struct

from nacl import bindings

CONSTRUCTION = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
TAI64_EPOCH = 2**62 + 10


def initiation(own_private_key: str, peer_public_key: str, clock_s: float) -> bytes:
    """The 148 bytes of a message that a peer accepts; both keys are in base64."""
    own, theirs = base64.b64decode(own_private_key), base64.b64decode(peer_public_key)
    ephemeral = os.urandom(32)
    chain = _hash(CONSTRUCTION)
    digest = _hash(_hash(chain + IDENTIFIER) + theirs)
    public = bindings.crypto_scalarmult_base(ephemeral)
    chain = _derive(chain, public)[0]
    digest = _hash(digest + public)
    chain, key = _derive(chain, bindings.crypto_scalarmult(ephemeral, theirs))
    static = _seal(key, bindings.crypto_scalarmult_base(own), digest)
    digest = _hash(digest + static)
    _, key = _derive(chain, bindings.crypto_scalarmult(own, theirs))
    stamp = _seal(key, struct.pack(">QI", TAI64_EPOCH + int(clock_s), 0), digest)
    body = struct.pack("<I", 1) + os.urandom(4) + public + static + stamp
    mac = hashlib.blake2s(body, digest_size=16, key=_hash(b"mac1----" + theirs)).digest()
    return body + mac + bytes(16)


def _hash(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _derive(chain: bytes, data: bytes) -> tuple[bytes, bytes]:
    secret = hmac.digest(chain, data, "blake2s")
    first = hmac.digest(secret, b"\x01", "blake2s")
    return first, hmac.digest(secret, first + b"\x02", "blake2s")


def _seal(key: bytes, plain: bytes, digest: bytes) -> bytes:
    return bindings.crypto_aead_chacha20poly1305_ietf_encrypt(plain, digest, bytes(12), key)
