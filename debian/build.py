"""Makes the package for Debian: `python -m debian.build FOLDER` writes a .deb there.

Plain files and dpkg-deb. Nothing is compiled: py3compile makes the bytecode when it is installed.
The same commit gives the same bytes.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from rpcd_wireguard_uplink import __version__

from .manual import PAGES, completion, page

HERE = Path(__file__).parent
ROOT = HERE.parent
NAME = "rpcd-wireguard-uplink"
STARTER = """\
#!/usr/bin/python3
import sys
from rpcd_wireguard_uplink.{module} import main
sys.exit(main())
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Files: *
License: Apache-2.0
 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.
"""


def build(folder: Path) -> Path:
    """Write the package into a folder; its file. Raises CalledProcessError."""
    file = folder / f"{NAME}_{__version__}_all.deb"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made) / "root"
        lay_out(root)
        size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
        control = (HERE / "control").read_text(encoding="utf-8")
        control = control.replace("@VERSION@", __version__).replace("@SIZE@", str(size // 1024))
        _write(root / "DEBIAN/control", control)
        for script in ("postinst", "prerm", "postrm"):
            _write(root / "DEBIAN" / script, (HERE / script).read_text(encoding="utf-8"), 0o755)
        _call("dpkg-deb", "--root-owner-group", "--build", str(root), str(file))
    return file


def lay_out(root: Path) -> None:
    """Lay out below `root` what the package installs."""
    for source in sorted((ROOT / "rpcd_wireguard_uplink").rglob("*")):
        if source.suffix in {".py", ".sh"}:
            target = root / "usr/lib/python3/dist-packages" / source.relative_to(ROOT)
            _write(target, source.read_text(encoding="utf-8"))
    for command, module in (("wgctl", "cli.main"), (NAME, "__main__")):
        _write(root / "usr/bin" / command, STARTER.format(module=module), 0o755)
    for name in PAGES:
        _write_packed(root / f"usr/share/man/man8/{name}.8.gz", page(name))
    _write(root / "usr/share/bash-completion/completions/wgctl", completion())
    unit = "wireguard-uplink.service"
    _write(root / "usr/lib/systemd/system" / unit, (HERE / unit).read_text(encoding="utf-8"))
    settings = (ROOT / "root/etc/config/wireguard-uplink").read_text(encoding="utf-8")
    _write(root / "usr/share/wireguard-uplink/wireguard-uplink.default", settings)
    hooks = (ROOT / "root/etc/wireguard-uplink.d/README").read_text(encoding="utf-8")
    _write(root / "etc/wireguard-uplink.d/README", hooks)
    documents = root / "usr/share/doc" / NAME
    _write(documents / "copyright", COPYRIGHT)
    _write_packed(documents / "changelog.gz", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    for source in sorted((ROOT / "docs").glob("*.md")):
        _write(documents / source.name, source.read_text(encoding="utf-8"))


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _write_packed(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _call(*words: str) -> None:
    when = os.environ.get("SOURCE_DATE_EPOCH", "0")
    done = subprocess.run(words, env={**os.environ, "SOURCE_DATE_EPOCH": when}, capture_output=True)
    if done.returncode:
        sys.exit(f"{words[0]}: {done.stderr.decode(errors='replace').strip()}")


if __name__ == "__main__":
    os.umask(0o022)
    if shutil.which("dpkg-deb") is None:
        sys.exit("dpkg-deb is missing: it is in Debian's package dpkg")
    sys.stdout.write(f"{build(Path(sys.argv[1] if len(sys.argv) > 1 else 'dist'))}\n")
