"""Configuration files in a directory: read, changed under a lock, replaced as a whole.

Two locks (flock) hold off other writers: the file itself, which libuci locks too (util.c,
uci_open_stream), and the new file beside it, which is there only during a write or while a
configuration is made. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from ..errors import ConfigError, Status
from ..reasons import because, of_system
from ..values import dataclass
from .document import Document, parse
from .draft import Draft
from .grammar import is_package

_NEW_FILE_MODE = 0o600
_LOCK_PAUSE_S = 0.02


class MissingConfig(ConfigError):
    """There is no such configuration file."""

    status = Status.NOT_FOUND
    code = "no_config"


class ConfigBusy(ConfigError):
    """Another program is changing the file, or has changed it meanwhile; nothing was written."""

    status = Status.TIMEOUT
    code = "config_busy"


class UnwritableConfig(ConfigError):
    """The system can't read or write the file; the old content is still there."""

    status = Status.SYSTEM_ERROR
    code = "config_io"


Signature = tuple[int, int, int]
"""Modification time, size and inode: it differs once a file was written. Taken before reading, no
change is missed.
"""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a configuration lies: links followed, its directory held open."""

    path: str
    directory: int
    name: str

    @property
    def new_name(self) -> str:
        # Programs that list configurations pass over names with a dot (file.c, get_filename).
        return f".{self.name}.new"


class Store:
    """The configuration files of one directory, as /etc/config is one."""

    def __init__(self, directory: str, *, lock_timeout_s: float = 5.0) -> None:
        self.directory = directory
        self.lock_timeout_s = lock_timeout_s
        self._parsed: dict[str, tuple[bytes, Document]] = {}

    def read(self, config: str, *, missing_ok: bool = False) -> Document:
        """Return a configuration; with `missing_ok` an empty one where there is no file.

        Raises MissingConfig, UnwritableConfig where it can't be read, ConfigError where it is not
        UCI.
        """
        path = self._path(config)
        with ExitStack() as stack, _translated(path):
            try:
                descriptor = _open(stack, path, os.O_RDONLY)
            except FileNotFoundError:
                if missing_ok:
                    return parse("", file=path)
                raise MissingConfig(because("config_missing", path)) from None
            return self._parse(_content(descriptor, path), path)

    def signature(self, config: str) -> Signature | None:
        """Return what to compare to see whether the file was written since; None without a file."""
        path = self._path(config)
        with _translated(path):
            try:
                found = os.stat(path)
            except FileNotFoundError:
                return None
        return _signature(found)

    @contextmanager
    def edit(self, config: str) -> Iterator[Draft]:
        """Yield the configuration to be changed, and write it when the block ends without error.

        Nobody else that locks can write meanwhile; a nested edit of the same configuration can't
        either. A file that doesn't exist is made (mode 0600). The file is replaced at once or not
        at all, keeps mode and owner, and is left alone where nothing changed or the block raised.

        Raises ConfigBusy where the locks aren't free within `lock_timeout_s`, or a program that
        doesn't lock wrote the file meanwhile; UnwritableConfig where the system refuses;
        ConfigError where the file is not UCI or the result would not be read back as it was meant.
        """
        path = self._path(config)
        deadline = time.monotonic() + self.lock_timeout_s
        with ExitStack() as stack:
            with _translated(path):
                place = _place(stack, path)
                before, old, new_file = _locked(stack, place, deadline)
            draft = Draft(self._parse(old, path))
            yield draft
            new = draft.document.encode()
            if new == old:
                draft.settle(None if before is None else _signature(before))
                return
            if not self._parse(new, path).equivalent(draft.document):
                raise ConfigError(
                    f"{path}: the changes don't read back as they were meant; report it"
                )
            with _translated(path):
                if new_file is None:
                    new_file = _locked_new_file(stack, place, deadline)
                _replace(place, new_file, new, before)
                draft.settle(_signature(os.fstat(new_file)))

    def shut_out_others(self, config: str) -> None:
        """Let nobody but owner and group open a configuration: who reads it can hold its lock."""
        with suppress(OSError):
            path = os.path.realpath(self._path(config))
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if mode & stat.S_IRWXO:
                os.chmod(path, mode & ~stat.S_IRWXO)

    def remove_unfinished(self, config: str) -> None:
        """Remove the new file that an edit left which was killed; not what somebody writes now."""
        with suppress(OSError, ConfigBusy), ExitStack() as stack:
            place = _place(stack, self._path(config))
            os.stat(place.new_name, dir_fd=place.directory)
            _locked_new_file(stack, place, time.monotonic())

    def _parse(self, content: bytes, path: str) -> Document:
        """The document of that content, parsed once for as long as the file holds it."""
        known = self._parsed.get(path)
        if known is None or known[0] != content:
            document = parse(content, file=path).without_lines(content)
            known = self._parsed[path] = content, document
        return known[1]

    def _path(self, config: str) -> str:
        if not is_package(config):
            raise ConfigError("a configuration's name may only hold letters, digits, _ and -")
        return f"{self.directory}/{config}"


def _locked(
    stack: ExitStack, place: _Place, deadline: float
) -> tuple[os.stat_result | None, bytes, int | None]:
    """Take the lock of the file; return its stat and content, and the new file where there is none.

    A file that isn't there can't be locked: the new file beside it stands in for it.
    """
    while True:
        with suppress(FileNotFoundError):
            held = _lock(stack, place, place.name, os.O_RDWR, deadline)
            return os.fstat(held), _content(held, place.path), None
        with ExitStack() as attempt:
            held = _locked_new_file(attempt, place, deadline)
            if _signature_of(place) is None:
                stack.push(attempt.pop_all())
                return None, b"", held


def _locked_new_file(stack: ExitStack, place: _Place, deadline: float) -> int:
    held = _lock(stack, place, place.new_name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, deadline)
    stack.callback(_remove_new_file, place, held)
    return held


def _lock(stack: ExitStack, place: _Place, name: str, flags: int, deadline: float) -> int:
    """Open and lock a file; the lock is of the file that has the name once the lock is held."""
    while True:
        with ExitStack() as attempt:
            held = _open(attempt, name, flags, directory=place.directory)
            _wait_for_lock(held, place.path, deadline)
            with suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=place.directory)
                if os.path.samestat(found, os.fstat(held)):
                    stack.push(attempt.pop_all())
                    return held


def _wait_for_lock(descriptor: int, path: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ConfigBusy(because("config_locked", path)) from None
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def _replace(place: _Place, new_file: int, content: bytes, before: os.stat_result | None) -> None:
    """Write the new file and give it the name, mode and owner of the old one."""
    os.ftruncate(new_file, 0)
    written = 0
    while written < len(content):
        written += os.pwrite(new_file, content[written:], written)
    if before is not None:
        mine = os.fstat(new_file)
        if (mine.st_uid, mine.st_gid) != (before.st_uid, before.st_gid):
            os.fchown(new_file, before.st_uid, before.st_gid)
    os.fchmod(new_file, _NEW_FILE_MODE if before is None else stat.S_IMODE(before.st_mode))
    os.fsync(new_file)
    if _signature_of(place) != (None if before is None else _signature(before)):
        raise ConfigBusy(because("config_changed", place.path))
    os.replace(place.new_name, place.name, src_dir_fd=place.directory, dst_dir_fd=place.directory)
    os.fsync(place.directory)


def _remove_new_file(place: _Place, held: int) -> None:
    """Remove the new file unless it has become the configuration."""
    with suppress(FileNotFoundError):
        found = os.stat(place.new_name, dir_fd=place.directory)
        if os.path.samestat(found, os.fstat(held)):
            os.unlink(place.new_name, dir_fd=place.directory)


def _place(stack: ExitStack, path: str) -> _Place:
    directory, name = os.path.split(os.path.realpath(path))
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, held)
    return _Place(path, held, name)


def _open(stack: ExitStack, name: str, flags: int, directory: int | None = None) -> int:
    # O_NONBLOCK: a FIFO of that name would block for good.
    flags |= os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(name, flags, _NEW_FILE_MODE, dir_fd=directory)
    stack.callback(os.close, descriptor)
    return descriptor


def _content(descriptor: int, path: str) -> bytes:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise UnwritableConfig(because("config_no_file", path))
    parts = []
    offset = 0
    while part := os.pread(descriptor, max(found.st_size - offset, 4096), offset):
        parts.append(part)
        offset += len(part)
    return b"".join(parts)


def _signature(found: os.stat_result) -> Signature:
    return found.st_mtime_ns, found.st_size, found.st_ino


def _signature_of(place: _Place) -> Signature | None:
    try:
        return _signature(os.stat(place.name, dir_fd=place.directory))
    except FileNotFoundError:
        return None


@contextmanager
def _translated(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UnwritableConfig(because("config_unwritten", path, of_system(error))) from error
