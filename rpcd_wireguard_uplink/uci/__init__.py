"""OpenWrt's configuration files (UCI), read and written without the `uci` program.

grammar.py turns text into commands, document.py says what they do one after the other, draft.py
edits that, store.py keeps files.
"""

from .document import Document, Section, Value, export, parse
from .draft import Draft
from .store import ConfigBusy, MissingConfig, Store, UnwritableConfig

__all__ = [
    "ConfigBusy",
    "Document",
    "Draft",
    "MissingConfig",
    "Section",
    "Store",
    "UnwritableConfig",
    "Value",
    "export",
    "parse",
]
