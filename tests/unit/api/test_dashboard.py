"""The dashboard's plugin: its output by rpcd's rules, its deadline, and the files beside ours."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.api import dashboard
from rpcd_wireguard_uplink.api.dashboard import Dashboard, parse_reply, parse_signatures
from rpcd_wireguard_uplink.errors import BusError, NameTaken, Status
from rpcd_wireguard_uplink.ubus import Call, Reply
from rpcd_wireguard_uplink.ubus.blobmsg import Type
from rpcd_wireguard_uplink.ubus.objects import Caller
from tests.unit.waiting import until

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "root/usr/libexec/wireguard-uplink/dashboard"
OURS = "/usr/libexec/wireguard-uplink"
CALLER = Caller("root", "root", 1)


@pytest.mark.parametrize(
    ("output", "reply"),
    [
        ('{"a":1}', Reply({"a": 1})),
        (' \n{"a":{}} {"b":2} rest', Reply({"a": {}})),
        ("", Reply(status=Status.NO_DATA)),
        ("null", Reply(status=Status.NO_DATA)),
        ("[1]", Reply(status=Status.INVALID_ARGUMENT)),
        ("5", Reply(status=Status.INVALID_ARGUMENT)),
        ("hello", Reply(status=Status.INVALID_ARGUMENT)),
        ('{"a":', Reply(status=Status.INVALID_ARGUMENT)),
        ("[" * 100000, Reply(status=Status.INVALID_ARGUMENT)),
    ],
)
def test_output_becomes_a_reply(output: str, reply: Reply) -> None:
    assert parse_reply(output) == reply


def test_list_becomes_a_signature() -> None:
    arguments = '{"s":"","i":32,"w":64,"h":16,"b":8,"t":true,"d":0.5,"a":[],"o":{},"n":null,"":1}'
    assert parse_signatures(f'{{"none":{{}},"all":{arguments},"bad":5,"":{{}}}}') == {
        "none": {},
        "all": {
            **{"s": Type.STRING, "i": Type.INT32, "w": Type.INT64, "h": Type.INT16},
            **{"b": Type.BOOL, "t": Type.BOOL, "d": Type.DOUBLE},
            **{"a": Type.ARRAY, "o": Type.TABLE, "n": Type.UNSPEC},
        },
    }
    assert parse_signatures("nonsense") == {}


def plugin(folder: Path, body: str) -> Path:
    """A plugin whose `list` shows one method, m, and whose `call` runs `body`."""
    path = folder / "plugin"
    path.write_text(f'[ "$1" = list ] && echo \'{{"m":{{}}}}\' && exit\n{body}\n')
    path.chmod(0o755)
    return path


async def forwarded(path: Path, method: str = "m", **arguments: object) -> Reply:
    return await Dashboard(str(path), "").forward(Call("luci", method, dict(arguments), CALLER))


async def test_a_call_is_forwarded_with_its_arguments(tmp_path: Path) -> None:
    path = plugin(tmp_path, 'read -r given; echo "{\\"given\\":$given}"; echo no >&2; exit 1')
    given = {"text": "ä", "none": None}
    assert await forwarded(path, **given) == Reply({"given": given})
    assert await forwarded(path, "other") == Reply(status=Status.METHOD_NOT_FOUND)
    assert await forwarded(tmp_path / "gone") == Reply(status=Status.METHOD_NOT_FOUND)


async def test_a_plugin_that_hangs_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(tmp_path, f"sleep 300 & echo $! >{tmp_path}/pid; wait")
    monkeypatch.setattr(dashboard, "CALL_S", 0.5)
    began = time.monotonic()
    assert await forwarded(path) == Reply(status=Status.TIMEOUT)
    assert time.monotonic() - began < 30
    pid = int((tmp_path / "pid").read_text())
    await until(lambda: not is_running(pid))


def is_running(pid: int) -> bool:
    """Whether a process is there and not only waiting to be reaped."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rsplit(")", 1)[1].split()[0] != "Z"


async def test_a_new_version_of_the_plugin_is_listed_again(tmp_path: Path) -> None:
    path = plugin(tmp_path, "echo '{}'")
    hosted = Dashboard(str(path), "")
    assert set(await hosted.signatures()) == {"m"}
    path.write_text("echo '{\"other\":{}}'\n")
    assert set(await hosted.signatures()) == {"other"}


async def test_the_name_is_asked_for_once_while_it_stays_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = plugin(tmp_path, "")
    script = tmp_path / "script"
    script.write_text(f"echo $1 >>{tmp_path}/said\n")
    hosted = Dashboard(str(path), str(script))
    tries = 0

    async def taken() -> None:
        nonlocal tries
        tries += 1
        raise NameTaken("taken")

    monkeypatch.setattr(dashboard, "FREE_S", 0.3)
    assert await hosted.take(taken) is False
    assert tries > 1
    assert await hosted.take(taken) is False
    assert (tmp_path / "said").read_text() == "take\ngive-back\n"

    async def lost() -> None:
        raise BusError("gone")

    with pytest.raises(BusError):
        await Dashboard(str(path), str(script)).take(lost)


# --- the script


class Tree:
    """A root with the dashboard's three files, and the script over it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.plugin = root / "usr/libexec/rpcd/luci.wireguard-dashboard"
        self.wgctl = root / "usr/sbin/wgctl"
        self.aside = root / "usr/sbin/wgctl.dashboard"
        self.library = root / "usr/lib/wireguard-dashboard/uplink.sh"
        for path in (self.plugin, self.wgctl, self.library):
            path.parent.mkdir(parents=True)
        self.install("first")

    def install(self, version: str) -> None:
        """As a package manager does: the old file goes, also where it is a link."""
        for path in (self.plugin, self.wgctl, self.library):
            path.unlink(missing_ok=True)
            path.write_text(version)
            path.chmod(0o755)

    def remove(self) -> None:
        for path in (self.plugin, self.wgctl, self.library):
            path.unlink(missing_ok=True)

    def run(self, *words: str) -> None:
        for _ in range(2):  # every command may be repeated
            subprocess.run(
                ["sh", str(SCRIPT), *words],
                env={"IPKG_INSTROOT": str(self.root), "PATH": os.environ["PATH"]},
                check=True,
            )

    def files(self) -> dict[str, str]:
        """Path -> text, or the target of a link."""
        return {
            str(path.relative_to(self.root)): os.readlink(path)
            if path.is_symlink()
            else path.read_text()
            for path in self.root.rglob("*")
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def linked(version: str) -> dict[str, str]:
    return {
        "usr/libexec/rpcd/luci.wireguard-dashboard": version,
        "usr/sbin/wgctl": f"{OURS}/wgctl",
        "usr/sbin/wgctl.dashboard": version,
        "usr/lib/wireguard-dashboard/uplink.sh": f"{OURS}/uplink.sh",
        "usr/lib/wireguard-dashboard/uplink.sh.dashboard": version,
    }


def test_files_are_linked_and_put_back(tree: Tree) -> None:
    before = tree.files()
    tree.run("link")
    assert tree.files() == linked("first")
    assert os.access(tree.aside, os.X_OK)
    tree.install("second")
    tree.run("link")
    assert tree.files() == linked("second")
    tree.run("unlink")
    assert tree.files() == dict.fromkeys(before, "second")
    assert os.access(tree.wgctl, os.X_OK)


def test_an_upgraded_dashboard_stays_as_it_is_when_we_leave(tree: Tree) -> None:
    tree.run("link")
    tree.install("second")
    before = {path: "second" for path in tree.files() if not path.endswith(".dashboard")}
    tree.run("unlink")
    assert tree.files() == before


def test_a_dashboard_that_went_away_leaves_nothing(tree: Tree) -> None:
    tree.run("link")
    tree.remove()
    tree.run("link")
    assert tree.files() == {}
    tree.install("second")
    tree.run("link")
    tree.plugin.unlink()
    tree.run("unlink")
    assert tree.files() == {}


def test_a_crash_between_two_steps_is_mended(tree: Tree) -> None:
    tree.run("link")
    tree.wgctl.unlink()
    tree.run("link")
    assert tree.files() == linked("first")
    tree.wgctl.unlink()
    tree.run("unlink")
    assert tree.wgctl.read_text() == "first" and not tree.aside.exists()


def test_the_mark_lies_in_the_plugin_s_mode(tree: Tree) -> None:
    hosted = Dashboard(str(tree.plugin), str(SCRIPT))
    tree.run("take")
    assert tree.plugin.stat().st_mode & 0o7777 == 0o1755
    assert not os.access(f"{tree.plugin}.dashboard", os.X_OK)
    assert hosted.marked
    tree.install("second")
    assert not hosted.marked
    tree.run("take")
    tree.run("give-back")
    assert tree.plugin.stat().st_mode & 0o7777 == 0o755
    assert not hosted.marked
    tree.plugin.chmod(0o644)  # the owner's own wish
    tree.run("take")
    tree.run("give-back")
    assert tree.plugin.stat().st_mode & 0o7777 == 0o644


def test_without_a_dashboard_the_script_does_nothing(tree: Tree) -> None:
    tree.remove()
    for word in ("take", "give-back", "link", "unlink"):
        tree.run(word)
    assert tree.files() == {}
    assert not Dashboard(str(tree.plugin), str(SCRIPT)).installed
