"""Makes packages for OpenWrt 24.10: `python -m openwrt.ipk FOLDER` writes .ipk files there.

No SDK is needed: what is in a package comes from the feed's own Makefile, run with a few lines in
the place of OpenWrt's build system. An .ipk is a compressed tar archive of three members
(opkg-lede, libopkg/pkg_extract.c). python3-h11, which that release's feed lacks, is made too, of
the h11 that is installed here.
"""

from __future__ import annotations

import argparse
import compileall
import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

FEED = Path(__file__).parent
PYTHON = "3.11"  # of OpenWrt 24.10
JSMIN = f"{sys.executable} -m rjsmin"
"""What OpenWrt's own build system has `jsmin` of luci-base for."""

STAND_INS = {
    "rules.mk": """
INCLUDE_DIR:=$(TOPDIR)/include
PKG_BUILD_DIR:=$(TOPDIR)/build
PKG_INSTALL_DIR:=$(TOPDIR)/installed
INSTALL_DIR:=install -d -m0755
CP:=cp -fpR
""",
    "include/package.mk": """
installed:
	$(Build/Prepare)
	$(Build/Compile)
	$(Build/Install)
define BuildPackage
$(eval $(Package/$(1)))
$(shell mkdir -p $(TOPDIR)/$(1)/packed)
package: package-$(1)
package-$(1): installed
	$$(call Py3Package/$(1)/install,$(TOPDIR)/$(1)/packed)
	$$(file >$(TOPDIR)/$(1)/depends,$(DEPENDS))
	$$(file >$(TOPDIR)/$(1)/title,$(TITLE))
	$$(file >$(TOPDIR)/$(1)/version,$(PKG_VERSION)-r$(PKG_RELEASE))
	$$(file >$(TOPDIR)/$(1)/conffiles,$$(Package/$(1)/conffiles))
	$$(file >$(TOPDIR)/$(1)/postinst,$$(Package/$(1)/postinst))
	$$(file >$(TOPDIR)/$(1)/prerm,$$(Package/$(1)/prerm))
	$$(file >$(TOPDIR)/$(1)/postrm,$$(Package/$(1)/postrm))
endef
""",
    "feeds/packages/lang/python/python3-package.mk": """
PYTHON3_PKG_DIR:=/usr/lib/python@PYTHON@/site-packages
""",
    "feeds/packages/lang/python/pypi.mk": "",
}
"""The names that the feed's Makefiles use of OpenWrt's build system, by file."""

# As OpenWrt's include/package-pack.mk has every package begin: the functions enable and start the
# init script, run uci-defaults, and run the package's own script, which lies beside as NAME-pkg.
SCRIPT = """\
#!/bin/sh
[ "${{IPKG_NO_SCRIPT}}" = 1 ] && exit 0
[ -s "${{IPKG_INSTROOT}}/lib/functions.sh" ] || exit 0
. "${{IPKG_INSTROOT}}/lib/functions.sh"
default_{name} "$0" "$@"
"""


def pack(package: Path, top: Path, python: str = PYTHON) -> Path:
    """Run a feed's Makefile in a build tree, which is returned; each package has a folder in it."""
    for name, text in STAND_INS.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(text.replace("@PYTHON@", python))
    words = ["make", "--no-print-directory", "-C", str(package), f"TOPDIR={top}", f"JSMIN={JSMIN}"]
    words.append("package")
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(words, env=variables, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return top


def build(folder: Path, *, bytecode: bool = False) -> list[Path]:
    """Write the packages into a folder; their files. Raises RuntimeError with what went wrong."""
    if bytecode and sys.version_info[:2] != tuple(map(int, PYTHON.split("."))):
        raise RuntimeError(f"bytecode for OpenWrt 24.10 is made by Python {PYTHON} only")
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as work:
        trees = []
        for package in ("python-h11", "rpcd-wireguard-uplink"):
            top = Path(work) / package
            (top / "build").mkdir(parents=True)
            if package == "python-h11":
                _bring_h11(top / "build" / "h11")
            pack(FEED / package, top)
            trees += sorted(path.parent for path in top.glob("*/packed"))
        for tree in trees:
            if bytecode:
                _compile(tree / "packed")
            made.append(_archive(tree, folder))
    return made


def _bring_h11(target: Path) -> None:
    import h11

    leave = shutil.ignore_patterns("__pycache__", "tests")
    shutil.copytree(Path(h11.__file__).parent, target, ignore=leave)


def _compile(packed: Path) -> None:
    """Bytecode in the place of every module, as OpenWrt's own packages of Python have it."""
    site = packed / f"usr/lib/python{PYTHON}/site-packages"
    compileall.compile_dir(
        site, quiet=1, legacy=True, stripdir=str(packed), prependdir="/", optimize=2
    )
    for source in site.rglob("*.py"):
        source.unlink()


def _archive(tree: Path, folder: Path) -> Path:
    name, packed = tree.name, tree / "packed"
    version = (tree / "version").read_text().strip()
    size = sum(path.stat().st_size for path in packed.rglob("*") if path.is_file())
    depends = ", ".join(word.removeprefix("+") for word in (tree / "depends").read_text().split())
    control = {
        "control": f"Package: {name}\nVersion: {version}\nDepends: libc, {depends}\n"
        f"Section: net\nArchitecture: all\nInstalled-Size: {size}\n"
        f"Description:  {(tree / 'title').read_text().strip()}\n",
        "conffiles": "".join(f"{name}\n" for name in _kept(tree)),
    }
    for script in ("postinst", "prerm"):
        control[script] = SCRIPT.format(name=script)
        control[f"{script}-pkg"] = (tree / script).read_text()
    control["postrm"] = (tree / "postrm").read_text()
    members = {
        "debian-binary": b"2.0\n",
        "data.tar.gz": _tar(packed),
        "control.tar.gz": _tar({name: text for name, text in control.items() if text.strip()}),
    }
    file = folder / f"{name}_{version}_all.ipk"
    file.write_bytes(_tar(members))
    return file


def _kept(tree: Path) -> list[str]:
    """The owner's files: opkg knows no folders, which the list of OpenWrt's build system has."""
    named = (tree / "conffiles").read_text().split()
    files = sorted(path for path in (tree / "packed").rglob("*") if path.is_file())
    names = [f"/{path.relative_to(tree / 'packed')}" for path in files]
    return [n for n in names if n in named or n.startswith(tuple(k for k in named if k[-1] == "/"))]


def _tar(content: Path | Mapping[str, str] | Mapping[str, bytes]) -> bytes:
    """A compressed archive, the same bytes each time: of a folder, or of named texts."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        if isinstance(content, Path):
            archive.add(content, ".", filter=_plain)
        else:
            for name, text in content.items():
                data = text.encode() if isinstance(text, str) else text
                member = tarfile.TarInfo(f"./{name}")
                member.size = len(data)
                member.mode = 0o755 if data.startswith(b"#!") else 0o644
                archive.addfile(member, io.BytesIO(data))
    return gzip.compress(out.getvalue(), mtime=0)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A file of root's, without the time at which it was made here."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = "root"
    return member


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bytecode", action="store_true", help="modules compiled, not as sources")
    given = parser.parse_args()
    try:
        for file in build(given.folder, bytecode=given.bytecode):
            sys.stdout.write(f"{file}\n")
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    os.umask(0o022)
    main()
