"""What the service never uses is not loaded with the libraries, and can be had all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.schema.lean import leaving_out

UNUSED = ("ssl", "_hashlib", "bz2", "lzma")
LATER = ("asyncio", "logging", "dataclasses", "inspect", "hashlib", "json")
ROOT = Path(__file__).resolve().parents[3]


def test_a_part_is_missing_meanwhile_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "antigravity_of_no_use", raising=False)
    with leaving_out("wave", "json", "antigravity_of_no_use"):
        assert sys.modules["json"] is not None, "what is loaded already stays"
        with pytest.raises(ModuleNotFoundError):
            import wave
    assert "antigravity_of_no_use" not in sys.modules
    import wave

    assert wave.open is not None
    with pytest.raises(RuntimeError), leaving_out("antigravity_of_no_use"):
        raise RuntimeError
    assert "antigravity_of_no_use" not in sys.modules, "after an error too"


def test_the_service_loads_no_tls_and_no_jsonschema_until_somebody_wants_it() -> None:
    """Nor the event loop before its object is on the bus."""
    script = (
        f"import sys, rpcd_wireguard_uplink.__main__\nUNUSED = {UNUSED}\n"
        f"print([name for name in {LATER} if name in sys.modules])\n"
        "import rpcd_wireguard_uplink.service, rpcd_wireguard_uplink.daemon\n"
        "from rpcd_wireguard_uplink.api.methods import METHODS\n"
        "print([n for n in ('argparse', 'jsonschema', 'shutil', 'base64') if n in sys.modules])\n"
        "METHODS['uplink_add'].arguments.prepare()\n"
        "print([name for name in ('jsonschema', *UNUSED) if name in sys.modules])\n"
        "import ssl, hashlib\n"
        "print(ssl.create_default_context() is not None, hashlib.sha256(b'a').hexdigest()[:8])\n"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
    told = ["[]", "[]", "['jsonschema']", "True ca978112"]
    assert done.stdout.splitlines() == told, done.stderr
