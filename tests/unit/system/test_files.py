"""Files of other programs: what is read, and everything that another user may plant there."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.system.files import (
    UnusableFile,
    read_bytes,
    read_names,
    read_or_tell,
    read_table,
    read_text,
    replace_file,
)

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's file")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def below_a_file(path: Path) -> None:
    path.with_name("file").write_text("")
    path.symlink_to("file/deeper")


def of_another_user(path: Path) -> None:
    path.write_text("nameserver 192.0.2.1\n")
    os.chown(path, NOBODY, NOBODY)


def writable(path: Path) -> None:
    path.write_text("nameserver 192.0.2.1\n")
    path.chmod(0o666)


def link_of_another_user(path: Path) -> None:
    target = path.with_name("target")
    target.write_text("nameserver 192.0.2.1\n")
    path.symlink_to(target)
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def too_long(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**9)


@as_root
@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (os.mkfifo, "is a FIFO"),
        (os.mkdir, "is a folder"),
        (a_socket, "is a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (lambda path: path.symlink_to(path.name), "can't be read"),
        (below_a_file, "can't be read"),
        (of_another_user, "not root's"),
        (writable, "other users may write"),
        (link_of_another_user, "not root's"),
        (too_long, "longer than"),
    ],
)
def test_what_another_user_plants_is_refused_at_once_and_named(
    tmp_path: Path, plant: Callable[[Path], object], told: str
) -> None:
    path = tmp_path / "planted"
    plant(path)
    begun_s = time.monotonic()
    for read in (read_bytes, read_text, read_table):
        with pytest.raises(UnusableFile) as caught:
            read(str(path))
        assert told in str(caught.value) and str(path) in str(caught.value)
    assert time.monotonic() - begun_s < 1.0


@as_root
@pytest.mark.parametrize("mode", [0o755, 0o1777])
def test_a_folder_of_another_user_is_no_place_for_a_file_of_root(tmp_path: Path, mode: int) -> None:
    """Whoever owns a folder can put any link or file of root's there under another name."""
    folder = tmp_path / "resolv.conf.d"
    folder.mkdir()
    (folder / "auto").write_text("nameserver 192.0.2.1\n")
    folder.chmod(mode)
    os.chown(folder, NOBODY, NOBODY)
    with pytest.raises(UnusableFile, match=r"resolv\.conf\.d is not root's"):
        read_text(str(folder / "auto"))
    with pytest.raises(UnusableFile, match=r"resolv\.conf\.d is not root's"):
        read_names(str(folder))


def test_a_folder_that_anybody_may_write_to_counts_only_if_it_is_sticky(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    (folder / "file").write_text("text")
    folder.chmod(0o1777)
    assert read_text(str(folder / "file")) == "text"
    folder.chmod(0o777)
    with pytest.raises(UnusableFile, match="other users may write to shared"):
        read_text(str(folder / "file"))


def test_links_of_root_are_followed(tmp_path: Path) -> None:
    """/etc/resolv.conf is one to /tmp/resolv.conf on OpenWrt, and /var one to /tmp."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("text")
    (tmp_path / "var").symlink_to("real")
    (tmp_path / "absolute").symlink_to(tmp_path / "var" / "file")
    (tmp_path / "up").symlink_to("real/../var/./file")
    for name in ("var/file", "absolute", "up"):
        assert read_text(str(tmp_path / name)) == "text"
    assert read_names(str(tmp_path / "var")) == ["file"]


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "dangling").symlink_to("nowhere")
    for name in ("no", "no/deeper", "dangling"):
        path = str(tmp_path / name)
        assert read_bytes(path) is None and read_text(path) == ""
        assert read_table(path) is None and read_names(path) is None


def test_a_secret_must_be_readable_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\n")
    path.chmod(0o640)
    with pytest.raises(UnusableFile, match="chmod 600"):
        read_bytes(str(path), private=True)
    path.chmod(0o600)
    assert read_bytes(str(path), private=True) == b"secret\n"


@pytest.mark.parametrize(
    "text", ["", "\x00", "[" * 100_000, "[]", "5", '{"a": ', "\ufeff{}", "nul"]
)
def test_what_is_no_table_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "table"
    path.write_text(text)
    with pytest.raises(UnusableFile, match="is ignored"):
        read_table(str(path))


def test_a_path_with_a_nul_is_none() -> None:
    with pytest.raises(UnusableFile):
        read_bytes("/tmp/a\0b")


def test_it_is_told_while_it_lasts(tmp_path: Path) -> None:
    path, problems = tmp_path / "file", {"else": "stays"}
    path.mkdir()
    assert read_or_tell(read_text, str(path), "none", problems) == "none"
    assert str(path) in problems[f"file {path}"]
    path.rmdir()
    path.write_text("text")
    assert read_or_tell(read_text, str(path), "none", problems) == "text"
    assert problems == {"else": "stays"}


def test_nothing_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_text("text")
    for name in ("fifo", "file", "no", "."):
        for read in (read_bytes, read_names):
            try:
                read(str(tmp_path / name))
            except UnusableFile:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_that_was_made_is_on_the_disk_before_what_is_put_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a power cut takes the file away with its folder, although it was synced itself."""
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    path = tmp_path / "a" / "keys" / "key"
    replace_file(str(path), b"key")
    above = [str(tmp_path), str(tmp_path / "a")]
    assert synced == [*above, f"{path}.new", str(path.parent)]
    synced.clear()
    replace_file(str(path), b"another")
    assert synced == [f"{path}.new", str(path.parent)]
