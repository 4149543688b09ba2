"""OpenWrt's configuration files (UCI), read and written without the `uci` program.

grammar.py turns text into commands and back, statements.py says what they do one after the other,
document.py is their result, draft.py edits it, store.py keeps files.
"""

from .document import Document, export, parse
from .draft import Draft
from .statements import Section, Value
from .store import ConfigBusy, MissingConfig, Signature, Store, UnwritableConfig

__all__ = [
    "ConfigBusy",
    "Document",
    "Draft",
    "MissingConfig",
    "Section",
    "Signature",
    "Store",
    "UnwritableConfig",
    "Value",
    "export",
    "parse",
]
