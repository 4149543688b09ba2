"""What `make deb` and `make ipk` make: complete, the same bytes each time, and it runs."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from debian import build as deb
from debian.manual import PAGES, completion, page
from openwrt import ipk
from rpcd_wireguard_uplink import __version__
from rpcd_wireguard_uplink.api.methods import METHODS
from rpcd_wireguard_uplink.command_line import command_line
from tests.repo import PACKAGE, ROOT

NAME = "rpcd-wireguard-uplink"


def archive(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        return {member.name.removeprefix("./"): member for member in members if not member.isdir()}


def text(data: bytes, name: str) -> str:
    with tarfile.open(fileobj=io.BytesIO(data)) as members:
        found = members.extractfile(f"./{name}")
        assert found is not None
        return found.read().decode()


# --- OpenWrt


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The files that `make ipk` makes."""
    return ipk.build(tmp_path_factory.mktemp("ipk"))


@pytest.fixture(scope="module")
def ipks(made: list[Path]) -> dict[str, dict[str, bytes]]:
    """The members of each package, by its name."""
    found = {}
    for file in made:
        with tarfile.open(file) as outer:
            assert outer.getnames() == ["./debian-binary", "./data.tar.gz", "./control.tar.gz"]
            members = {m.name: outer.extractfile(m) for m in outer}
            found[file.name.partition("_")[0]] = {
                name.removeprefix("./"): member.read() for name, member in members.items() if member
            }
    return found


def test_each_ipk_has_its_three_members(ipks: dict[str, dict[str, bytes]]) -> None:
    assert set(ipks) == {NAME, f"{NAME}-mqtt", "python3-h11"}
    for name, members in ipks.items():
        assert members["debian-binary"] == b"2.0\n"
        fields = dict(
            line.split(": ", 1) for line in text(members["control.tar.gz"], "control").splitlines()
        )
        assert fields["Package"] == name and fields["Architecture"] == "all"
        assert fields["Depends"].startswith("libc, ")
    fields = text(ipks[NAME]["control.tar.gz"], "control")
    assert f"Version: {__version__}-r1\n" in fields and "python3-h11" in fields


def test_the_ipk_holds_what_make_install_lays_out(
    ipks: dict[str, dict[str, bytes]], laid_out: Path
) -> None:
    files = {str(p.relative_to(laid_out)) for p in laid_out.rglob("*") if p.is_file()}
    packed = archive(ipks[NAME]["data.tar.gz"])
    left_out = {name for name in files if "/extras/mqtt/" in name or "/standalone/" in name}
    assert packed.keys() == files - left_out
    for member in (found for found in packed.values() if found.isfile()):
        assert (member.uid, member.gid, member.mtime) == (0, 0, 0)
        assert not member.mode & (stat.S_IWGRP | stat.S_IWOTH)
    for name in ("etc/init.d/wireguard-uplink", "usr/bin/wgctl", f"usr/bin/{NAME}"):
        assert packed[name].mode & stat.S_IXUSR


def test_the_pages_of_the_ipk_have_no_comments(ipks: dict[str, dict[str, bytes]]) -> None:
    data = io.BytesIO(ipks[NAME]["data.tar.gz"])
    with tarfile.open(fileobj=data) as tar:
        for source in (ROOT / "htdocs").rglob("*.js"):
            member = tar.extractfile(f"./www/{source.relative_to(ROOT / 'htdocs')}")
            assert member is not None
            text = member.read()
            assert text.startswith(b"'use strict';'require ") and b"/*" not in text
            assert len(text) < source.stat().st_size
        style = tar.extractfile("./www/luci-static/resources/wireguard-uplink/uplink.css")
        assert style is not None
        assert b".wgup-now{padding-block:6px;" in style.read()


def test_the_scripts_of_the_ipk_call_openwrts_own(ipks: dict[str, dict[str, bytes]]) -> None:
    control = archive(ipks[NAME]["control.tar.gz"])
    assert all(m.mode & stat.S_IXUSR for n, m in control.items() if n.startswith(("pre", "post")))
    for name in ("postinst", "prerm"):
        data = ipks[NAME]["control.tar.gz"]
        assert f'default_{name} "$0" "$@"' in text(data, name)
        assert text(data, f"{name}-pkg").startswith("#!/bin/sh\n")
    kept = text(ipks[NAME]["control.tar.gz"], "conffiles").split()
    assert "/etc/config/wireguard-uplink" in kept
    assert {name.lstrip("/") for name in kept} <= archive(ipks[NAME]["data.tar.gz"]).keys()


@pytest.mark.deep
def test_an_ipk_is_the_same_bytes_each_time(made: list[Path], tmp_path: Path) -> None:
    assert [file.read_bytes() for file in made] == [f.read_bytes() for f in ipk.build(tmp_path)]


@pytest.mark.deep
def test_bytecode_is_for_the_routers_python_only(tmp_path: Path) -> None:
    ours = f"{sys.version_info.major}.{sys.version_info.minor}"
    if ours != ipk.PYTHON:
        with pytest.raises(RuntimeError, match=r"made by Python 3\.11 only"):
            ipk.build(tmp_path, bytecode=True)
        return
    file = next(f for f in ipk.build(tmp_path, bytecode=True) if f.name.startswith(f"{NAME}_"))
    with tarfile.open(file) as outer:
        member = outer.extractfile("./data.tar.gz")
        assert member is not None
        names = archive(member.read()).keys()
    assert f"usr/lib/python3.11/site-packages/{PACKAGE.name}/daemon.pyc" in names
    assert not [name for name in names if name.endswith(".py")]


def test_make_names_what_a_bare_machine_lacks(tmp_path: Path) -> None:
    """Debian's python3 has no ensurepip, so no folder for the packages' Python can be made."""
    for tool in ("sh", "id"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    (tmp_path / "bare").write_text('#!/bin/sh\n[ "$2" != "import ensurepip" ]\n')
    (tmp_path / "bare").chmod(0o755)
    words = [shutil.which("make") or "make", "-s", "ipk", "PYTHON=bare", f"VENV={tmp_path}/venv"]
    path = {"PATH": str(tmp_path)}
    done = subprocess.run(words, cwd=ROOT, env=path, capture_output=True, text=True)
    assert done.returncode != 0 and not (tmp_path / "venv").exists()
    assert "(as root on Debian: apt-get install python3-venv)" in done.stderr


@pytest.mark.needs("opkg")
def test_the_real_opkg_installs_and_removes_it(made: list[Path], tmp_path: Path) -> None:
    files = [str(file) for file in made if "mqtt" not in file.name]
    router = tmp_path / "router"
    for folder in ("usr/lib/opkg/info", "etc", "tmp", "var/lock"):
        (router / folder).mkdir(parents=True)
    (router / "etc/opkg.conf").write_text("dest root /\narch all 1\n")
    with tarfile.open(files[1]) as outer:
        member = outer.extractfile("./control.tar.gz")
        assert member is not None
        depends = text(member.read(), "control").partition("Depends: ")[2].partition("\n")[0]
    status = "Package: {}\nVersion: 1\nStatus: install user installed\nArchitecture: all\n\n"
    there = [name for name in depends.split(", ") if name != "python3-h11"]
    (router / "usr/lib/opkg/status").write_text("".join(status.format(name) for name in there))
    for name in there:
        (router / f"usr/lib/opkg/info/{name}.list").write_text("")
    opkg = ["opkg", "-f", str(router / "etc/opkg.conf"), "-o", str(router)]
    done = subprocess.run([*opkg, "install", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (router / "usr/bin/wgctl").exists() and "error" not in done.stderr.lower()
    done = subprocess.run([*opkg, "remove", NAME], capture_output=True, text=True)
    assert done.returncode == 0 and not (router / "usr/bin/wgctl").exists()


# --- Debian


def quick_deb(folder: Path) -> Path:
    with pytest.MonkeyPatch.context() as quickly:
        quickly.setenv("DPKG_DEB_COMPRESSOR_TYPE", "gzip")
        return deb.build(folder)


@pytest.mark.deep
def test_a_deb_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    first, second = quick_deb(tmp_path / "first"), quick_deb(tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with the files of the .deb, and its control files in DEBIAN."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not here")
    folder = tmp_path_factory.mktemp("deb")
    file = quick_deb(folder)
    subprocess.run(["dpkg-deb", "-R", str(file), str(folder / "root")], check=True)
    return folder / "root"


@pytest.mark.parametrize("command", ["wgctl", NAME])
def test_the_commands_of_the_deb_run(installed: Path, command: str) -> None:
    words = [sys.executable, str(installed / "usr/bin" / command), "--help"]
    path = {"PYTHONPATH": str(installed / "usr/lib/python3/dist-packages")}
    path["PYTHONDONTWRITEBYTECODE"] = "1"  # the tree stays what was packed
    done = subprocess.run(
        words, env={**os.environ, **path}, capture_output=True, text=True, cwd="/"
    )
    assert done.returncode == 0 and command in done.stdout


def test_the_deb_has_every_module_and_needs_what_they_import(installed: Path) -> None:
    modules = {p.relative_to(PACKAGE) for p in PACKAGE.rglob("*") if p.suffix in {".py", ".sh"}}
    site = installed / "usr/lib/python3/dist-packages" / PACKAGE.name
    assert {p.relative_to(site) for p in site.rglob("*") if p.is_file()} == modules
    control = (installed / "DEBIAN/control").read_text()
    assert f"Version: {__version__}\n" in control and "@" not in control.partition("Depends")[2]
    for name in ("python3-jsonschema", "python3-h11", "nftables", "wireguard-tools", "conntrack"):
        assert name in control
    assert not (installed / "etc/config").exists(), "the service writes it: it is no conffile"


def test_the_unit_starts_the_service_as_it_wants_to_be_started(installed: Path) -> None:
    unit = (installed / "usr/lib/systemd/system/wireguard-uplink.service").read_text()
    line = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    program, *arguments = line.removeprefix("ExecStart=").split()
    assert (installed / program.lstrip("/")).exists()
    given = command_line().parse_args(arguments)
    assert given.broker and given.platform == "standalone"
    assert "Type=notify\n" in unit and "KillMode=process\n" in unit and "WatchdogSec=" in unit


@pytest.mark.needs("shellcheck")
@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_the_scripts_of_the_deb_are_sound(installed: Path, name: str) -> None:
    script = installed / "DEBIAN" / name
    assert os.access(script, os.X_OK)
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("others", ["", "config interface 'lan'\n"])
def test_a_purge_leaves_nothing_but_what_is_others(
    installed: Path, tmp_path: Path, others: str
) -> None:
    """Without netifd the service has a `network` of its own, which is empty without an uplink."""
    etc = tmp_path / "etc"
    (etc / "config").mkdir(parents=True)
    (etc / "wireguard-uplink/keys").mkdir(parents=True)
    for name, text in (("wireguard-uplink", "config uplink\n"), ("network", others)):
        (etc / "config" / name).write_text(text)
    script = (installed / "DEBIAN/postrm").read_text().replace("/etc/", f"{etc}/")
    script = script.replace("/run/systemd", str(tmp_path)).replace("deb-systemd-helper", "false")
    subprocess.run(["sh", "-c", script, "postrm", "purge"], check=True)
    left = sorted(path.name for path in etc.rglob("*"))
    assert left == (["config", "network"] if others else [])


def test_the_manual_has_every_command_and_argument() -> None:
    plain = page("wgctl").replace("\\-", "-")
    for method in METHODS.values():
        if method.command:
            assert f"wgctl uplink {method.command}" in plain
            assert method.doc in plain
            for name in method.arguments.properties:
                typed = (name.upper(), f"--{name.replace('_', '-')}", name, "PEER")
                assert any(word in plain for word in typed)
    for word in ("doctor", "metrics", "get", "set", "unset"):
        assert f"wgctl uplink {word}" in plain
    assert "--broker" in page(NAME).replace("\\-", "-")


@pytest.mark.needs("groff")
@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_manual_page_is_sound(name: str) -> None:
    words = ["groff", "-man", "-Tutf8", "-ww"]
    done = subprocess.run(words, input=page(name), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("wgctl upl", "uplink"),
        ("wgctl uplink tru", "trust"),
        ("wgctl uplink trust acc", "accept"),
        ("wgctl uplink trust accept nodea --fing", "--fingerprint"),
        ("wgctl --json uplink failover en", "enable"),
    ],
)
def test_bash_completes(tmp_path: Path, line: str, expected: str) -> None:
    script = tmp_path / "completion"
    ask = f"COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _wgctl"
    script.write_text(f'{completion()}\n{ask}\necho "${{COMPREPLY[@]}}"\n')
    done = subprocess.run(["bash", str(script)], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([expected], "")
