"""Loads a library without the optional parts of Python that it would load and we don't use.

asyncio brings in `ssl` and hashlib `_hashlib`, each with the whole of OpenSSL (5 MB together),
shutil and zipfile (of jsonschema) bring in `bz2` and `lzma`. All of them do without, as on a router
where these packages are not installed. Whoever needs one later, MQTT over TLS, still gets it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def leaving_out(*names: str) -> Iterator[None]:
    """Have these modules missing for what is imported meanwhile, unless they are loaded already."""
    hidden = [name for name in names if name not in sys.modules]
    # None makes an import fail with ModuleNotFoundError (The Python Language Reference, 5.3.1).
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
