"""Loads a library without the optional parts of Python that it would load and we don't use.

asyncio brings in `ssl` and hashlib `_hashlib`, each with the whole of OpenSSL (5 MB together),
shutil and zipfile (of jsonschema) bring in `bz2` and `lzma`. All of them do without, as on a router
where these packages are not installed. Whoever needs one later, MQTT over TLS, still gets it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from types import ModuleType


@contextlib.contextmanager
def leaving_out(*names: str, empty: Iterable[str] = ()) -> Iterator[None]:
    """Have these modules missing for what is imported meanwhile, and the `empty` ones without
    anything in them, unless they are loaded already.
    """
    # None makes an import fail with ModuleNotFoundError (The Python Language Reference, 5.3.1).
    instead = {**dict.fromkeys(names), **{name: ModuleType(name) for name in empty}}
    hidden = {name: module for name, module in instead.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
