"""Forks services that can be struck down at any change that they make; driven over a pipe.

A point is what changes something: a file, a program that is started, a request to the kernel. At a
point that the driver chose the service is killed, or loses its power, or its disk begins to fail.
A fork spares the second that a start takes.
"""

from __future__ import annotations

import builtins
import json
import mmap
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import time
from functools import lru_cache
from typing import Any

from tests.chaos.powercut import Disk

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
MANY_LEASES = 100_000  # one peer asks again and again
LIMITS = {"files": resource.RLIMIT_NOFILE, "memory": resource.RLIMIT_AS}


class Shared:
    """Numbers that the driver sets and a service reads."""

    NAMES = ("left", "mode", "error", "clock_s")
    KILL, CUT, FAIL = 1, 2, 3

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 8 * len(self.NAMES))

    def __getitem__(self, name: str) -> int:
        found: int = struct.unpack_from("q", self._memory, 8 * self.NAMES.index(name))[0]
        return found

    def __setitem__(self, name: str, value: int) -> None:
        struct.pack_into("q", self._memory, 8 * self.NAMES.index(name), value)


class Struck:
    """The faults of one service, in its own process. `disk` records what lies below its root."""

    def __init__(self, shared: Shared, root: str, note: str) -> None:
        self.shared, self.note = shared, note
        self.disk = Disk(root)
        self.real = {name: getattr(os, name) for name in ("open", "fsync", "replace", "unlink")}
        self.real |= {name: getattr(os, name) for name in ("mkdir", "rmdir", "pwrite", "ftruncate")}
        self.real_open, self.real_time = builtins.open, time.time

    def install(self) -> None:
        self.disk.begin()
        made: dict[str, Any] = {
            "open": self._open,
            "fsync": self._fsync,
            "replace": self._replace,
            "unlink": lambda path, *, dir_fd=None: self._named("unlink", path, dir_fd),
            "mkdir": lambda path, mode=0o777, *, dir_fd=None: self._named(
                "mkdir", path, dir_fd, mode
            ),
            "rmdir": lambda path, *, dir_fd=None: self._named("rmdir", path, dir_fd),
            "pwrite": self._on_descriptor("pwrite"),
            "ftruncate": self._on_descriptor("ftruncate"),
        }
        for name, function in made.items():
            setattr(os, name, function)
        os.rename, os.remove = os.replace, os.unlink
        builtins.open = self._open_file  # type: ignore[assignment]
        time.time = lambda: self.real_time() + self.shared["clock_s"]
        sys.addaudithook(self._hear)

    def point(self, *, on_disk: bool) -> None:
        """Something is about to be changed."""
        left = self.shared["left"]
        if left > 0:
            self.shared["left"] = left - 1
            if left == 1:
                self._strike()
        if on_disk and self.shared["error"] and self.shared["left"] == 0:
            raise OSError(self.shared["error"], os.strerror(self.shared["error"]))

    def _strike(self) -> None:
        if self.shared["mode"] == Shared.FAIL:
            return
        if self.shared["mode"] == Shared.CUT:
            self.shared["left"] = -1
            self.disk.end()
            with self.real_open(self.note, "wb") as file:
                pickle.dump(self.disk, file)
        os.kill(os.getpid(), signal.SIGKILL)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        to_kernel = event == "socket.sendto" and arguments[0].family == socket.AF_NETLINK
        if to_kernel or event == "subprocess.Popen":
            self.point(on_disk=False)

    def _path(self, path: Any, folder: int | None) -> str:
        """The whole path where it lies below the root, else ''."""
        text = os.fsdecode(path)
        if folder is not None and not text.startswith("/"):
            text = os.path.join(os.readlink(f"/proc/self/fd/{folder}"), text)
        text = os.path.abspath(text)
        return text if text.startswith(self.disk.root + "/") else ""

    def _opening(self, path: str, real: Any) -> Any:
        self.point(on_disk=True)
        was = os.path.lexists(path)
        found = real()
        if not was:
            self.disk.changed("create", path)
        return found

    def _open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        def real() -> int:
            made: int = self.real["open"](path, flags, mode, dir_fd=dir_fd)
            return made

        whole = self._path(path, dir_fd) if flags & WRITING and not flags & os.O_PATH else ""
        return int(self._opening(whole, real)) if whole else real()

    def _open_file(self, path: Any, mode: str = "r", *arguments: Any, **more: Any) -> Any:
        def real() -> Any:
            return self.real_open(path, mode, *arguments, **more)

        is_named = isinstance(path, str | bytes | os.PathLike)
        whole = self._path(path, None) if is_named and set(mode) & set("wax+") else ""
        return self._opening(whole, real) if whole else real()

    def _fsync(self, descriptor: int) -> None:
        whole = self._path(os.readlink(f"/proc/self/fd/{descriptor}"), None)
        if whole:
            self.point(on_disk=True)
        self.real["fsync"](descriptor)
        if whole:
            self.disk.fsynced(whole)

    def _replace(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        old, new = self._path(src, src_dir_fd), self._path(dst, dst_dir_fd)
        if new:
            self.point(on_disk=True)
        self.real["replace"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
        if new:
            self.disk.changed("rename", old, new)

    def _named(self, what: str, path: Any, folder: int | None, *mode: int) -> None:
        whole = self._path(path, folder)
        if whole:
            self.point(on_disk=what == "mkdir")
        self.real[what](path, *mode, dir_fd=folder)
        if whole:
            self.disk.changed(what, whole)

    def _on_descriptor(self, what: str) -> Any:
        def change(descriptor: int, *arguments: Any) -> Any:
            if self._path(os.readlink(f"/proc/self/fd/{descriptor}"), None):
                self.point(on_disk=True)
            return self.real[what](descriptor, *arguments)

        return change


def start(shared: Shared, order: dict[str, Any]) -> int:
    """Fork a service; its pid."""
    shared["left"] = shared["error"] = shared["clock_s"] = 0
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if order["note"]:  # what is recorded grows
            Struck(shared, order["root"], order["note"]).install()
        else:
            _remember_little()
        from rpcd_wireguard_uplink.__main__ import main

        status = main(order["argv"])
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


def _remember_little() -> None:
    """Have caches of routes be full soon: each tunnel that is made anew has routes of its own."""
    from rpcd_wireguard_uplink.steering import tables
    from rpcd_wireguard_uplink.system import rtnetlink

    for module, name in ((rtnetlink, "_parse_route"), (tables, "_copy")):
        setattr(module, name, lru_cache(maxsize=256)(getattr(module, name).__wrapped__))


def main() -> None:
    from rpcd_wireguard_uplink.provider import lease_server

    lease_server.NEW_BURST = MANY_LEASES

    shared, child, ended = Shared(), 0, None
    for line in sys.stdin:
        order = json.loads(line)
        answer: Any = None
        if order["do"] == "start":
            child, ended = start(shared, order), None
        elif order["do"] == "set":
            for name, value in order["values"].items():
                shared[name] = value
        elif order["do"] == "get":
            answer = shared[order["name"]]
        elif order["do"] == "limit" and ended is None:
            kind = LIMITS[order["kind"]]
            hard = resource.prlimit(child, kind)[1]
            resource.prlimit(child, kind, (hard if order["value"] < 0 else order["value"], hard))
        elif order["do"] == "read" and ended is None:
            path = f"/proc/{child}/{order['name']}"
            if os.path.isdir(path):
                answer = os.listdir(path)
            else:
                with open(path, encoding="ascii") as file:
                    answer = file.read()
        elif order["do"] == "signal" and ended is None:
            os.kill(child, order["number"])
        elif order["do"] == "pid":
            answer = child
        if order["do"] in ("poll", "wait") and ended is None and child:
            found, status = os.waitpid(child, os.WNOHANG if order["do"] == "poll" else 0)
            ended = os.waitstatus_to_exitcode(status) if found else None
        if order["do"] in ("poll", "wait"):
            answer = ended
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
