"""The translations of the LuCI pages: what is to be translated, the catalogues, and LuCI's format.

    python3 po/catalogue.py update          bring templates/ and all catalogues up to the pages
    python3 po/catalogue.py compile FOLDER  write FOLDER/wireguard-uplink.LANG.lmo

Needs nothing but Python: a package is built where LuCI's own po2lmo need not be. No text has a
plural form or a context.
"""

from __future__ import annotations

import ast
import json
import re
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOMAIN = "wireguard-uplink"
_CALL = re.compile(r"(?<![\w$])_\(\s*'((?:[^'\\\n]|\\.)*)'\s*\)")
_ANY_CALL = re.compile(r"(?<![\w$])_\(")
_LINE = re.compile(r'(?:(msgid|msgstr) )?("(?:[^"\\]|\\.)*")')


def texts_of_script(source: str) -> list[str]:
    """What a script gives to _(). Raises ValueError where that is anything but one literal."""
    found = [ast.literal_eval(f"'{text}'") for text in _CALL.findall(source)]
    if len(found) != len(_ANY_CALL.findall(source)):
        raise ValueError("a text that is given to _() is no plain literal in single quotes")
    return found


def texts(root: Path) -> list[str]:
    """All texts of the pages, of the menu and of the service's sentences, in order, once each."""
    from rpcd_wireguard_uplink.reasons import page_texts

    found: list[str] = []
    for file in sorted(root.glob("root/usr/share/luci/menu.d/*.json")):
        entries = json.loads(file.read_text("utf-8")).values()
        found += [entry["title"] for entry in entries if "title" in entry]
    for file in sorted(root.glob("htdocs/**/*.js")):
        found += texts_of_script(file.read_text("utf-8"))
    return list(dict.fromkeys([*found, *page_texts().values()]))


def parse(text: str) -> dict[str, str]:
    """A catalogue's texts and translations; the header's key is ''.

    Raises ValueError for a line that is neither text nor comment.
    """
    pairs: list[list[str]] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise ValueError(f"not understood: {line}")
        if match[1] == "msgid":
            pairs.append(["", ""])
        part = 1 if match[1] == "msgstr" or (match[1] is None and pairs[-1][1]) else 0
        pairs[-1][part] += ast.literal_eval(match[2])
    return dict(map(tuple, pairs))  # type: ignore[arg-type]


def render(pairs: Iterable[tuple[str, str]]) -> str:
    """A catalogue as text."""

    def quoted(text: str) -> str:
        return json.dumps(text, ensure_ascii=False)

    return "\n".join(f"msgid {quoted(a)}\nmsgstr {quoted(b)}\n" for a, b in pairs)


def update(root: Path, folder: Path) -> None:
    """Write the template, and give every catalogue exactly its texts; translations stay."""
    wanted = texts(root)
    header = "Content-Type: text/plain; charset=UTF-8\n"
    for file in [folder / "templates" / f"{DOMAIN}.pot", *folder.glob(f"*/{DOMAIN}.po")]:
        known = parse(file.read_text("utf-8")) if file.suffix == ".po" else {}
        first = ("", known.get("", header))
        text = render([first, *((text, known.get(text, "")) for text in wanted)])
        file.write_text(text, encoding="utf-8")


def compile_catalogue(pairs: dict[str, str]) -> bytes:
    """A catalogue in LuCI's binary format (luci-base, po2lmo.c): texts, then an index by hash.

    What is not translated is left out; LuCI then shows the text itself.
    """
    content, index = b"", []
    for text, translated in pairs.items():
        data = translated.encode()
        if text and data and hash_of(text.encode()) != hash_of(data):
            index.append((hash_of(text.encode()), 1, len(content), len(data)))
            content += data + bytes(-len(data) % 4)
    entries = b"".join(struct.pack(">IIII", *entry) for entry in sorted(index))
    return content + entries + struct.pack(">I", len(content)) if content else b""


def hash_of(data: bytes) -> int:
    """The hash by which LuCI finds a text (luci-base, lmo.c: sfh_hash)."""
    mask = 0xFFFFFFFF
    value, whole = len(data), len(data) & ~3
    for i in range(0, whole, 4):
        value = value + (data[i] | data[i + 1] << 8) & mask
        value = value << 16 ^ (data[i + 2] | data[i + 3] << 8) << 11 ^ value
        value = value & mask
        value = value + (value >> 11) & mask
    rest = data[whole:]
    if rest:
        first = rest[0] | rest[1] << 8 if len(rest) > 1 else _signed(rest[0])
        value = value + first & mask
        value = (value ^ value << {3: 16, 2: 11, 1: 10}[len(rest)]) & mask
        if len(rest) == 3:
            value = (value ^ _signed(rest[2]) << 18) & mask
        value = value + (value >> {3: 11, 2: 17, 1: 1}[len(rest)]) & mask
    for left, right in ((3, 5), (4, 17), (25, 6)):
        value = (value ^ value << left) & mask
        value = value + (value >> right) & mask
    return value


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def main(words: list[str]) -> int:
    """The command line; its exit status."""
    if words == ["update"]:
        update(HERE.parent, HERE)
    elif len(words) == 2 and words[0] == "compile":
        target = Path(words[1])
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(HERE.glob(f"*/{DOMAIN}.po")):
            content = compile_catalogue(parse(file.read_text("utf-8")))
            (target / f"{DOMAIN}.{file.parent.name}.lmo").write_bytes(content)
    else:
        print(__doc__, file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
