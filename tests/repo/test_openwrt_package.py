"""The feed's Makefile: what it depends on covers what is imported, what it packs is complete.

OpenWrt's build system is not here: a few lines stand in for it, with the names that it gives to
folders and commands.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import h11
import pytest

from openwrt.ipk import pack
from rpcd_wireguard_uplink import __version__
from rpcd_wireguard_uplink.cli.doctor.checks import PROGRAMS
from tests.repo import PACKAGE, ROOT
from tests.repo.test_folders import modules, names_in, tree_of

FEED = ROOT / "openwrt" / "rpcd-wireguard-uplink"
NAME = "rpcd-wireguard-uplink"
LIGHT = "python3-light"
NEXT = "3.13"
"""The Python of a release after 24.10."""

SPLIT = {
    "python3-asyncio": {"asyncio"},
    "python3-codecs": {"unicodedata"},
    "python3-ctypes": {"ctypes", "_ctypes"},
    "python3-dbm": {"dbm", "_dbm", "_gdbm"},
    "python3-decimal": {"decimal", "_decimal"},
    "python3-email": {"email"},
    "python3-logging": {"logging"},
    "python3-lzma": {"lzma", "_lzma"},
    "python3-multiprocessing": {"multiprocessing", "_multiprocessing"},
    "python3-ncurses": {"curses", "_curses"},
    "python3-openssl": {"ssl", "_ssl", "_hashlib"},
    "python3-pydoc": {"pydoc", "doctest", "pydoc_data"},
    "python3-readline": {"readline"},
    "python3-sqlite3": {"sqlite3", "_sqlite3"},
    "python3-unittest": {"unittest"},
    "python3-urllib": {"urllib"},
    "python3-uuid": {"uuid", "_uuid"},
    "python3-venv": {"venv", "ensurepip"},
    "python3-xml": {"xml", "xmlrpc", "pyexpat", "_elementtree"},
}
"""The parts of the standard library that python3-light has not, by the package that has them
(OpenWrt's packages feed, lang/python/python3/files).
"""

BROUGHT = {
    "python3-jsonschema": {"python3-decimal", "python3-urllib", "python3-uuid", "python3-email"}
}
"""What a dependency depends on in turn, in every release (python3-urllib holds or brings email)."""

OPTIONAL = {"paho", "nacl", "ssl"}
"""What is loaded where it is there: `ssl` for MQTT over TLS."""

PROBE = """
import importlib, socket, sys
refused, names = (set(word.split(",")) for word in sys.argv[1:3])
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused or name in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
for name in list(sys.modules):
    if name.partition(".")[0] in refused:
        del sys.modules[name]
sys.meta_path.insert(0, Refuse())
for name in sorted(names):
    importlib.import_module(name)
if "rpcd_wireguard_uplink.api.methods" in names:
    methods = importlib.import_module("rpcd_wireguard_uplink.api.methods").METHODS
    methods["uplink_add"].arguments.prepare()
socket.getaddrinfo("127.0.0.1", 53)
"""


def imported_by_us() -> set[str]:
    """Every module that ours import, wherever they do so, and ours."""
    found = {name for path in modules() for name in names_in(path)}
    own = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules()}
    own = {name.removesuffix(".__init__") for name in own}
    others = {name for name in found if name.partition(".")[0] not in {PACKAGE.name, "__future__"}}
    return own | others


def load(
    packages: set[str], names: set[str], besides: Iterable[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Import modules in a Python that has of the split packages only these; `besides` are missing
    modules of ours.
    """
    refused = {module for name, parts in SPLIT.items() if name not in packages for module in parts}
    refused |= {*besides}
    words = [sys.executable, "-c", PROBE, ",".join(refused), ",".join(names)]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build tree in which both packages were prepared, installed and packed."""
    return pack(FEED, tmp_path_factory.mktemp("openwrt"), NEXT)


@pytest.fixture(scope="module")
def feed(packages: Path) -> Path:
    """What was made of the main package."""
    return packages / NAME


def depends(feed: Path) -> set[str]:
    words = (feed / "depends").read_text().split()
    assert all(word.startswith("+") for word in words)
    return {word[1:] for word in words}


# --- dependencies


def test_the_named_packages_hold_all_that_is_imported(feed: Path) -> None:
    named = depends(feed)
    brought = {name for package in named for name in BROUGHT.get(package, ())}
    names = {n for n in imported_by_us() if n.partition(".")[0] not in OPTIONAL}
    done = load(named | brought, names)
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_page_names_the_same_packages(feed: Path) -> None:
    text = (ROOT / "docs/install-openwrt.md").read_text(encoding="utf-8")
    line = text.partition("opkg install python3-light ")[2].partition("\n\n")[0]
    named = set(line.replace("\\", " ").split()) | {"python3-light", "python3-h11"}
    assert named == depends(feed)
    assert re.search(r"pip install .*--target \S+ h11\b", text), "24.10 and 25.12 have no h11"


def test_mqtt_is_a_package_of_its_own(packages: Path) -> None:
    assert depends(packages / f"{NAME}-mqtt") == {NAME, "python3-paho-mqtt"}
    ours = {name for name in imported_by_us() if name.startswith(f"{PACKAGE.name}.")}
    without = {name for name in ours if ".extras.mqtt" not in name}
    done = load(set(SPLIT), without, besides={f"{PACKAGE.name}.extras.mqtt"})
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_is_foreign_is_named(feed: Path) -> None:
    tops = {name.partition(".")[0] for name in imported_by_us()}
    foreign = tops - sys.stdlib_module_names - {PACKAGE.name}
    assert {"jsonschema", "h11"} <= foreign <= {"jsonschema", "h11"} | OPTIONAL
    assert {LIGHT, "python3-jsonschema", "python3-h11"} <= depends(feed)


def test_every_named_part_of_python_is_needed(feed: Path) -> None:
    named = depends(feed) & set(SPLIT)
    # Without the library, which would bring some of them.
    ours = {f"{PACKAGE.name}.{name}" for name in ("daemon", "service", "__main__", "cli")}
    assert load(named, ours).returncode == 0
    for package in named:
        assert load(named - {package}, ours).returncode != 0, f"{package} is not needed"


def test_every_program_has_its_package(feed: Path) -> None:
    assert {on_openwrt for _, on_openwrt, _ in PROGRAMS.values()} <= depends(feed)
    assert {"kmod-wireguard", "kmod-nft-fib", "kmod-nft-nat", "rpcd"} <= depends(feed)


def test_a_program_that_is_run_is_known() -> None:
    """Every literal first word of an argument vector in the package."""
    found = set()
    for path in modules():
        runs = "run(" in path.read_text(encoding="utf-8")
        for node in ast.walk(tree_of(path)) if runs else ():
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.List):
                words = node.args[0].elts
                if words and isinstance(words[0], ast.Constant):
                    name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
                    found |= {words[0].value} if name == "run" else set()
    shipped_with_openwrt = {"fw4", "uci", "ubus", "sh", "wireguard-go"}
    only_for_a_limit = {"tc"}  # an offer with a limit is refused where it is missing
    assert {"nft", "wg"} <= found <= set(PROGRAMS) | shipped_with_openwrt | only_for_a_limit


# --- contents


def files_below(folder: Path) -> dict[str, bool]:
    """The files of a folder, and whether they can be run."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): os.access(path, os.X_OK) for path in files}


def test_the_packages_are_what_make_install_lays_out(packages: Path, laid_out: Path) -> None:
    packed, mqtt = (files_below(packages / name / "packed") for name in (NAME, f"{NAME}-mqtt"))
    found = {n.replace("/python3.11/", "/python3.13/"): x for n, x in files_below(laid_out).items()}
    extras = f"usr/lib/python3.13/site-packages/{PACKAGE.name}/extras"
    assert mqtt and all(name.startswith(f"{extras}/mqtt/") for name in mqtt)
    assert not packed.keys() & mqtt.keys()
    elsewhere = {name for name in found if name.startswith(f"{extras}/standalone/")}
    assert packed | mqtt == {name: found[name] for name in found.keys() - elsewhere}
    for name in ("etc/init.d/wireguard-uplink", "usr/bin/rpcd-wireguard-uplink", "usr/bin/wgctl"):
        assert packed[name], f"{name} can't be run"
    for name in ("etc/config/wireguard-uplink", "lib/upgrade/keep.d/wireguard-uplink"):
        assert name in packed
    assert f"usr/lib/python3.13/site-packages/{PACKAGE.name}/daemon.py" in packed
    assert f"usr/share/rpcd/acl.d/{NAME}.json" in packed


def test_nothing_of_the_dashboard_is_in_it(feed: Path) -> None:
    theirs = {"usr/sbin/wgctl", "usr/lib/wireguard-dashboard/uplink.sh"}
    theirs |= {"usr/libexec/rpcd/luci.wireguard-dashboard", "etc/config/wireguard_uplink"}
    assert not theirs & files_below(feed / "packed").keys()


def test_version_and_configuration_files(feed: Path) -> None:
    assert (feed / "version").read_text().strip() == f"{__version__}-r1"
    kept = (ROOT / "root/lib/upgrade/keep.d/wireguard-uplink").read_text().split()
    assert (feed / "conffiles").read_text().split() == kept


def test_h11_is_packed_and_needs_no_more_than_it_names(tmp_path: Path) -> None:
    (tmp_path / "build").mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(h11.__file__).parent, tmp_path / "build" / "h11", ignore=ignored)
    (tmp_path / "build" / "h11" / "tests").mkdir()
    made = pack(FEED.parent / "python-h11", tmp_path, NEXT) / "python3-h11"
    there = {file.name for file in Path(h11.__file__).parent.glob("*.py")}
    folder = "usr/lib/python3.13/site-packages/h11"
    assert set(files_below(made / "packed")) == {f"{folder}/{name}" for name in there}
    assert depends(made) == {LIGHT}
    for_the_probe = {"python3-codecs"}
    assert load({LIGHT} | for_the_probe, {"h11"}).returncode == 0
    assert (made / "version").read_text().split(".")[:2] >= ["0", "14"]


# --- the package manager's scripts


def run_script(feed: Path, name: str, folder: Path, **variables: str) -> list[str]:
    """What a script of the package does on a router below `folder`: the commands, in order."""
    log = folder / "log"
    log.write_text("")
    scripts = ("etc/init.d/rpcd", "etc/init.d/wireguard-uplink", "libexec/dashboard")
    for path in (*scripts, "bin/rpcd-wireguard-uplink"):
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        running = '[ "$1" != running ] || [ -n "$RUNNING" ] || exit 1\n'
        file.write_text(f'#!/bin/sh\n{running}echo "{file.name} $1" >>{log}\n')
        file.chmod(0o755)
    text = (feed / name).read_text()
    assert text.startswith("#!/bin/sh\n")
    text = text.replace("/usr/libexec/wireguard-uplink/", f"{folder}/libexec/")
    text = text.replace("/usr/bin/", f"{folder}/bin/")
    text = text.replace("/etc/init.d/", f"{folder}/etc/init.d/").replace("/var/run/", f"{folder}/")
    words = {"PATH": os.environ["PATH"]} | variables
    done = subprocess.run(["sh", "-c", text], env=words, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return log.read_text().splitlines()


GIVEN_BACK = ["rpcd-wireguard-uplink uninstall", "dashboard give-back", "dashboard unlink"]


def test_an_install_tells_rpcd(feed: Path, tmp_path: Path) -> None:
    assert run_script(feed, "postinst", tmp_path) == ["rpcd reload"]


def test_an_upgrade_that_stopped_nothing_restarts(feed: Path, tmp_path: Path) -> None:
    told = run_script(feed, "postinst", tmp_path, PKG_UPGRADE="1", RUNNING="1")
    assert told == ["rpcd reload", "wireguard-uplink running", "wireguard-uplink restart"]


def test_a_removal_gives_everything_back(feed: Path, tmp_path: Path) -> None:
    # A process that is gone already: the pid of a child that was waited for.
    gone = subprocess.Popen(["true"])
    gone.wait()
    (tmp_path / "wireguard-uplink.pid").write_text(f"{gone.pid}\n")
    told = run_script(feed, "prerm", tmp_path)
    assert told == ["wireguard-uplink stop", *GIVEN_BACK]
    assert run_script(feed, "postrm", tmp_path) == ["rpcd reload"]
    assert run_script(feed, "prerm", tmp_path, PKG_UPGRADE="1") == []


def test_the_name_is_given_back_only_once_the_service_is_gone(feed: Path, tmp_path: Path) -> None:
    service = subprocess.Popen(["sleep", "60"])
    (tmp_path / "wireguard-uplink.pid").write_text(f"{service.pid}\n")
    reaper = threading.Thread(target=service.wait)  # procd's part
    reaper.start()
    second, asleep = tmp_path / "second", tmp_path / "sleeps" / "sleep"
    asleep.parent.mkdir()
    asleep.write_text(
        f'#!/bin/sh\necho "sleep $1" >>{tmp_path}/log\n'
        f"[ -e {second} ] || exec touch {second}\n"
        f"kill {service.pid}\nwhile kill -0 {service.pid} 2>/dev/null; do :; done\n"
    )
    asleep.chmod(0o755)
    try:
        told = run_script(feed, "prerm", tmp_path, PATH=f"{asleep.parent}:{os.environ['PATH']}")
    finally:
        service.kill()
        reaper.join()
    assert told == ["wireguard-uplink stop", "sleep 1", "sleep 1", *GIVEN_BACK]


@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_an_image_that_is_built_runs_nothing(feed: Path, tmp_path: Path, name: str) -> None:
    assert run_script(feed, name, tmp_path, IPKG_INSTROOT="/image") == []


@pytest.mark.needs("shellcheck")
@pytest.mark.parametrize("name", ["postinst", "prerm", "postrm"])
def test_the_scripts_suit_busybox(feed: Path, name: str) -> None:
    words = ["shellcheck", "--shell=dash", "--exclude=SC2034,SC2015", str(feed / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
