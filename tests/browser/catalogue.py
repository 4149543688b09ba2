"""Gives a page its translations as LuCI's dispatcher does. The catalogues are po/catalogue.py's."""

from __future__ import annotations

import json

from po.catalogue import DOMAIN, HERE, hash_of, parse


def read_catalogue(lang: str) -> dict[str, str]:
    """The translations into a language; none where there is no catalogue."""
    file = HERE / lang / f"{DOMAIN}.po"
    if not file.is_file():
        return {}
    found = parse(file.read_text(encoding="utf-8"))
    return {text: translated for text, translated in found.items() if text and translated}


def translation_script(texts: dict[str, str]) -> str:
    """What a page loads: `TR` by hash for LuCI, `TEXTS` by text for its stand-in."""
    hashed = {f"{hash_of(text.encode()):08x}": told for text, told in texts.items()}
    return f"window.TR = {json.dumps(hashed)}; window.TEXTS = {json.dumps(texts)};"
