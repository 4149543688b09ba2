"""Bounded reads of files that other programs write: a regular file of root's, or nothing at all.

Whoever may write to a shared folder can plant a FIFO, a device, a link or a file of his own there.
So a path is walked without opening anything (O_PATH, open(2)): each folder, link and file on it
must be root's or this process's own, and no one else may change it (a sticky folder's entries are
their owners'). Only then is the file opened, and no read blocks or is longer than its bound.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

from ..errors import Status, UplinkError
from ..reasons import because, of_system
from ..text import printable

T = TypeVar("T")

log = logging.getLogger(__name__)

MOST_BYTES = 262144
MOST_LINKS = 40  # as the kernel follows (path_resolution(7))
_UNFINISHED = ".new"
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UnusableFile(UplinkError):
    """Something has the file's name, and it is not to be read or not to be understood."""

    status = Status.SYSTEM_ERROR
    code = "unusable_file"


def read_bytes(path: str, most: int = MOST_BYTES, *, private: bool = False) -> bytes | None:
    """The content of a file; None where there is none.

    `private` asks for a file that nobody but its owner may read. Raises UnusableFile, with a
    sentence that names the file, for everything that is no such file.
    """
    with ExitStack() as stack:
        found = _find(stack, path)
        if found is None:
            return None
        about = os.fstat(found)
        if not stat.S_ISREG(about.st_mode):
            raise UnusableFile(
                because("file_ignored", printable(path), because(_kind(about.st_mode)))
            )
        if private and about.st_mode & 0o077:
            raise UnusableFile(because("file_readable", printable(path), printable(path)))
        with _told(path), os.fdopen(_open(found, _READ), "rb") as file:
            data = file.read(most + 1)
    if len(data) > most:
        raise UnusableFile(because("file_ignored", printable(path), because("too_long", most)))
    return data


def read_text(path: str) -> str:
    """The text of a file, '' where there is none; bytes that are no UTF-8 are replaced."""
    data = read_bytes(path)
    return "" if data is None else data.decode(errors="replace")


def read_table(path: str, most: int = MOST_BYTES) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is no file."""
    data = read_bytes(path, most)
    if data is None:
        return None
    try:
        table = json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError) as error:
        raise UnusableFile(because("file_ignored", printable(path), because("no_json"))) from error
    if not isinstance(table, dict):
        raise UnusableFile(because("file_ignored", printable(path), because("no_json_object")))
    return table


def read_names(path: str) -> list[str] | None:
    """The names in a folder, sorted; None where there is none."""
    with ExitStack() as stack:
        found = _find(stack, path)
        if found is None:
            return None
        with _told(path):
            folder = _open(found, _READ | os.O_DIRECTORY)
            stack.callback(os.close, folder)
            return sorted(os.listdir(folder))


def read_or_tell(
    read: Callable[[str], T],
    path: str,
    without: T,
    problems: MutableMapping[str, str] | None = None,
) -> T:
    """What `read(path)` gives, or `without`, and why among the problems, while it is unusable."""
    topic, told = f"file {path}", {} if problems is None else problems
    try:
        found = read(path)
    except UnusableFile as error:
        if problems is not None and told.get(topic) != str(error):
            log.warning("%s", error)
        told[topic] = str(error)
        return without
    told.pop(topic, None)
    return found


def replace_file(path: str, data: bytes, mode: int = 0o600, *, is_lasting: bool = True) -> None:
    """Have a file hold this, all or nothing; a reader sees the old or the new one. Raises OSError.

    It is on the disk when this returns where it `is_lasting`. The folder is made (0700) if there
    is none. For folders that only root writes to.
    """
    folder = os.path.dirname(path) or "."
    _make_folder(folder)
    fresh = f"{path}{_UNFINISHED}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with ExitStack() as undo:
        undo.callback(_remove, fresh)
        with os.fdopen(os.open(fresh, flags, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
            file.flush()
            if is_lasting:
                os.fsync(file.fileno())
        os.replace(fresh, path)
        undo.pop_all()
    if is_lasting:
        _sync_folder(folder)


def _make_folder(folder: str) -> None:
    """Have a folder that no power cut takes away again, with what is put on the disk in it."""
    if not os.path.isdir(folder):
        above = os.path.dirname(folder) or "."
        _make_folder(above)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        _sync_folder(above)


def _sync_folder(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    with suppress(OSError):
        os.unlink(path)


def remove_unfinished(folder: str) -> None:
    """Remove what replace_file() left in a folder of ours where it was killed in the middle."""
    with suppress(OSError, UnusableFile):
        for name in read_names(folder) or ():
            if name.endswith(_UNFINISHED):
                os.unlink(os.path.join(folder, name))


def _find(stack: ExitStack, path: str) -> int | None:
    """A descriptor that stands for what the path leads to, unopened; None where nothing is."""
    shown = printable(path)
    with _told(path):
        here = _hold(stack, "/" if path.startswith("/") else ".", None)
        left, links = path.split("/")[::-1], 0
        _check(os.fstat(here), shown, "/")
        while left:
            name = left.pop()
            if name in ("", "."):
                continue
            try:
                found = _hold(stack, name, here)
            except FileNotFoundError:
                return None
            about = os.fstat(found)
            _check(about, shown, printable(name))
            if not stat.S_ISLNK(about.st_mode):
                here = found
                continue
            links += 1
            if links > MOST_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            target = os.readlink("", dir_fd=found)
            left += target.split("/")[::-1]
            if target.startswith("/"):
                here = _hold(stack, "/", None)
    return here


def _check(about: os.stat_result, shown: str, name: str) -> None:
    """Refuse what another user owns or may change."""
    top = os.stat("/")  # its owner is another only in a user namespace without the machine's root
    if about.st_uid not in (0, top.st_uid, os.geteuid()):
        raise UnusableFile(because("file_not_roots", shown, name, about.st_uid))
    is_folder = stat.S_ISDIR(about.st_mode)
    if not (is_folder or stat.S_ISREG(about.st_mode)) or about.st_mode & stat.S_ISVTX:
        return
    by_group = about.st_mode & stat.S_IWGRP and about.st_gid not in (0, top.st_gid, os.getegid())
    if about.st_mode & stat.S_IWOTH or by_group:
        raise UnusableFile(because("file_writable", shown, name))


def _hold(stack: ExitStack, name: str, folder: int | None) -> int:
    descriptor = os.open(name, _LOOK, dir_fd=folder)
    stack.callback(os.close, descriptor)
    return descriptor


def _open(found: int, flags: int) -> int:
    return os.open(f"/proc/self/fd/{found}", flags)


def _kind(mode: int) -> str:
    names = ((stat.S_ISDIR, "is_folder"), (stat.S_ISFIFO, "is_fifo"), (stat.S_ISSOCK, "is_socket"))
    return next((name for test, name in names if test(mode)), "is_device")


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Translate what the system says of a path."""
    try:
        yield
    except OSError as error:
        raise UnusableFile(because("unread", printable(path), of_system(error))) from error
    except ValueError as error:  # a NUL in it
        raise UnusableFile(because("unread", printable(path), because("no_path"))) from error
