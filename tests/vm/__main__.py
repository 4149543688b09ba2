"""Plays scenes of the laboratory on Debian's kernel under qemu: `python -m tests.vm [scene ...]`.

Debian's packages are fetched once and unpacked into build/vm; none is installed. The machine has no
network device, sees the host's files without being able to change them, and forgets everything. It
is emulated in software: as slow as a small router. Its clock counts instructions, so that seconds
are the same however busy the host is.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from typing import NamedTuple

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CACHE = os.path.join(PROJECT, "build", "vm")
TREE = os.path.join(CACHE, "tree")
BUSYBOX = os.path.join(TREE, "usr/bin/busybox")
INITRAMFS = os.path.join(CACHE, "initramfs")
WITH_NEEDED = ("qemu-system-x86", "kmod", "ppp", "pppoe")
"""Packages that are unpacked with all that they need and this machine has not."""
KERNEL = "linux-image-amd64"
EARLY = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""Modules that the machine needs before it sees the host's files."""
LIMIT_S = 1200.0
TICK = 2  # an instruction takes 2**2 ns


class Row(NamedTuple):
    """One thing that was seen. `result` begins with FAILS where it is not as it should be."""

    scene: str
    what: str
    result: str
    seconds: float

    def line(self) -> str:
        return f"{self.scene:<10} {self.what:<52} {self.result:<40} {self.seconds:6.1f} s"


class VmError(Exception):
    """No machine: the message says what is missing or failed."""


def run(*argv: str, cwd: str | None = None, input: bytes | None = None) -> str:
    """A command's output; one of the unpacked finds the libraries that were unpacked with it."""
    env = {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", **libraries()}
    done = subprocess.run(argv, cwd=cwd, input=input, capture_output=True, env=env, check=False)
    if done.returncode:
        raise VmError(f"{' '.join(argv)[:200]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode(errors="replace")


def libraries() -> dict[str, str]:
    return {"LD_LIBRARY_PATH": os.path.join(TREE, "usr/lib/x86_64-linux-gnu")}


def unpack() -> None:
    """Fetch and unpack the packages, unless an earlier run did."""
    done = os.path.join(CACHE, "unpacked")
    names = " ".join((*WITH_NEEDED, KERNEL))
    if os.path.exists(done) and read(done) == names:
        return
    if shutil.which("apt-get") is None or os.uname().machine != "x86_64":
        raise VmError("it is made of Debian's packages by apt-get, on an x86-64 processor")
    shutil.rmtree(CACHE, ignore_errors=True)
    packages = os.path.join(CACHE, "packages")
    os.makedirs(packages)
    for folder in ("bin", "lib", "lib64", "sbin"):  # as Debian has them
        os.makedirs(os.path.join(TREE, "usr", folder))
        os.symlink(f"usr/{folder}", os.path.join(TREE, folder))
    try:
        fetch(packages)
    except VmError:
        run("apt-get", "-qq", "update")
        fetch(packages)
    for name in sorted(os.listdir(packages)):
        archive = subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", os.path.join(packages, name)], stdout=subprocess.PIPE
        )
        subprocess.run(
            ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", TREE],
            stdin=archive.stdout,
            check=True,
        )
        if archive.wait():
            raise VmError(f"can't unpack {name}")
    shutil.rmtree(packages)
    depmod = os.path.join(CACHE, "depmod")
    os.symlink(os.path.join(TREE, "usr/bin/kmod"), depmod)
    run(depmod, "-b", TREE, release())
    with open(done, "w", encoding="ascii") as file:
        file.write(names)


def fetch(folder: str) -> None:
    """Fetch what is to be unpacked, as the lists of packages have it."""
    plan = run("apt-get", "-s", "install", "--no-install-recommends", *WITH_NEEDED)
    wanted = {line.split()[1] for line in plan.splitlines() if line.startswith("Inst ")}
    images = run("apt-cache", "depends", "--important", KERNEL).split("Depends: ")
    wanted |= {*WITH_NEEDED, "busybox-static", images[1].split()[0]}
    print(f"Debian: fetches {len(wanted)} packages into {CACHE}", flush=True)
    run("apt-get", "-o", "APT::Sandbox::User=root", "download", *sorted(wanted), cwd=folder)


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def release() -> str:
    """The version of the unpacked kernel."""
    return os.listdir(os.path.join(TREE, "usr/lib/modules"))[0]


def make_initramfs() -> None:
    """BusyBox, our init and the early modules, numbered in the order in which they load."""
    modules = os.path.join(TREE, "usr/lib/modules", release())
    needs: dict[str, list[str]] = {}
    with open(os.path.join(modules, "modules.dep"), encoding="ascii") as file:
        for line in file:
            path, _, others = line.partition(":")
            needs[path.rpartition("/")[2].partition(".")[0]] = [path, *others.split()]
    ordered: list[str] = []
    for name in EARLY:
        ordered += [path for path in reversed(needs.get(name, ())) if path not in ordered]
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        os.makedirs(os.path.join(folder, "modules"))
        os.makedirs(os.path.join(folder, "bin"))
        for number, path in enumerate(ordered):
            target = os.path.join(folder, "modules", f"{number:02}-{os.path.basename(path)}")
            shutil.copyfile(os.path.join(modules, path), target)
        shutil.copy(BUSYBOX, os.path.join(folder, "bin"))
        init = os.path.join(folder, "init")
        shutil.copyfile(os.path.join(os.path.dirname(__file__), "init.sh"), init)
        os.chmod(init, 0o755)
        names = "\n".join(
            os.path.relpath(os.path.join(above, name), folder)
            for above, below, files in os.walk(folder)
            for name in (*below, *files)
        )
        run(BUSYBOX, "cpio", "-o", "-H", "newc", "-F", INITRAMFS, cwd=folder, input=names.encode())


def machine(scenes: Sequence[str]) -> list[str]:
    """The command that runs the machine."""
    share = os.path.join(TREE, "usr/share")
    variables = {"PROJECT": PROJECT, "PYTHON": sys.executable, "SCENES": ",".join(scenes)}
    words = " ".join(f"{name}={value}" for name, value in variables.items())
    shares = []
    for name, path in (("host", "/"), ("tree", TREE)):
        options = f"path={path},security_model=none,readonly=on,multidevs=remap"
        shares += ["-fsdev", f"local,id={name},{options}"]
        shares += ["-device", f"virtio-9p-pci,fsdev={name},mount_tag={name}"]
    return [
        *("setpriv", "--pdeathsig", "KILL", "nice", "-n", "10"),
        *(os.path.join(TREE, "usr/bin/qemu-system-x86_64"), "-nodefaults", "-no-reboot"),
        *("-L", f"{share}/qemu", "-L", f"{share}/seabios"),
        *("-accel", "tcg", "-icount", f"shift={TICK}"),
        *("-cpu", "max", "-smp", "1", "-m", "1536"),
        *("-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none"),
        *shares,
        *("-kernel", os.path.join(TREE, "boot", f"vmlinuz-{release()}"), "-initrd", INITRAMFS),
        *("-append", f"console=ttyS0 panic=-1 rdinit=/init {words}"),
    ]


def play(scenes: Sequence[str]) -> list[Row]:
    """Run the machine to its end or LIMIT_S, print what it says, and return its rows."""
    rows: list[Row] = []
    qemu = subprocess.Popen(
        machine(scenes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **libraries()},
        text=True,
        errors="replace",
    )
    limit = threading.Timer(LIMIT_S, qemu.kill)
    limit.start()
    try:
        for line in qemu.stdout or ():
            if line.startswith("row "):
                rows.append(Row(*json.loads(line[4:])))
                print(rows[-1].line(), flush=True)
            else:
                print(line, end="", flush=True)
    finally:
        limit.cancel()
        qemu.kill()
        qemu.wait()
    return rows


def main() -> int:
    """0 if every scene was played to its end and every row is as it should be."""
    try:
        unpack()
        make_initramfs()
        rows = play(sys.argv[1:])
    except (VmError, OSError, subprocess.SubprocessError) as error:
        print(f"no machine: {error}", file=sys.stderr)
        return 1
    failed = [row.what for row in rows if row.result.startswith("FAILS")]
    is_whole = bool(rows) and rows[-1].scene == "end"
    if not is_whole:
        failed.append(f"the machine stopped before its end (it has {LIMIT_S:g} s)")
    print(f"{len(rows)} rows" + (f"; failed: {', '.join(failed)}" if failed else ", all as wanted"))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
