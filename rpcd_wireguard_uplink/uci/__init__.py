"""OpenWrt's configuration files (UCI), read and written without the `uci` program.

grammar.py turns text into commands and back, statements.py says what they do one after the other,
document.py edits, store.py keeps files. Nothing here knows what any option is for.
"""

from .document import Document, Draft, export, parse
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
