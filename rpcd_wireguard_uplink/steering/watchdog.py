"""The dead-man switch: a small process that ends a diversion when this one falls silent.

Policy rules do not lapse by themselves. While a diversion is in force a word goes down a FIFO every
second; where none comes for 4 s, a shell takes all our rules and routes back, gives rp_filter its
values back and ends. It leaves our control group, so that killing the group does not end it too.

A strict reverse path filter (1) drops the answers to our probes of a dead WAN, since the way back
leads into the tunnel then: it is loose on WANs that are diverted from. The kernel takes the larger
of `all` and the device's value, so 2 is the loose one. What was there is kept in a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import subprocess
import time
from collections.abc import Collection, Mapping

from ..reasons import because, of_system
from ..system.files import read_or_tell, read_text, replace_file
from ..system.proc import filter_of, read_setting, write_setting
from ..values import dataclass
from .plan import DIVERTING, STANDING

BEAT_S = 1.0
SILENCE_S = 4
STRICT, LOOSE = "1", "2"
STARTING_S = 3.0  # a router that is busy starts a shell slowly
SCRIPT = os.path.join(os.path.dirname(__file__), "watchdog.sh")


@dataclass(slots=True)
class Watchdog:
    """The watchdog of one service. Its FIFO and the saved values lie in `directory`, root's own."""

    directory: str
    _fifo: int = -1
    _child: subprocess.Popen[bytes] | None = None
    _started_s: float = 0.0
    _over: bool = False

    @property
    def saved_path(self) -> str:
        """Where the rp_filter values lie that are to be given back."""
        return os.path.join(self.directory, "rp_filter")

    def beat(self, *, armed: bool) -> str:
        """Say that we live while a diversion is in force (`armed`), else that it is over.

        Starts a watchdog where none listens; '' or why there is none.
        """
        if not armed:
            self._let_go()
            return ""
        self._over = False
        if self._open(make=True) and self._write(b"armed\n"):
            return ""
        if self._is_running() and time.monotonic() - self._started_s < STARTING_S:
            return ""  # it has not opened its end yet; it starts armed
        return self._start()

    def prolong(self) -> None:
        """Give an earlier run's diversion its full time again: the service is on its way."""
        if self._open():
            self._write(b"armed\n")
        self._close()

    def end(self) -> None:
        told = self._open() and self._write(b"end\n")
        self._close()
        if self._child is not None:
            if not told:
                self._child.kill()  # it hears nothing, or not yet
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(1.0)

    def leave(self) -> None:
        """Close our end; a watchdog that is armed takes the diversion back unless we return."""
        self._close()

    def _let_go(self) -> None:
        """Have it end; one that is only starting is told again with the next beat."""
        if not self._over:
            if self._open():
                self._write(b"end\n")
            self._close()
            self._over = not self._is_running()

    def _open(self, *, make: bool = False) -> bool:
        if self._fifo >= 0:
            return True
        path = os.path.join(self.directory, "heartbeat")
        try:
            if make and not os.path.exists(path):
                os.makedirs(self.directory, mode=0o700, exist_ok=True)
                os.mkfifo(path, 0o600)
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False  # ENXIO: nobody reads it; ENOENT: nobody ever did
        if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return False
        self._fifo = descriptor
        return True

    def _write(self, word: bytes) -> bool:
        try:
            os.write(self._fifo, word)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                return True  # it is held up, and will read
            self._close()
            return False
        return True

    def _close(self) -> None:
        if self._fifo >= 0:
            with contextlib.suppress(OSError):
                os.close(self._fifo)
            self._fifo = -1

    def _is_running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def _start(self) -> str:
        """Start one; never two, which would each hear but a part of the words."""
        if self._child is not None and self._is_running():
            self._child.kill()  # it reads another FIFO than ours
            self._child.wait()
        shell = find_shell()
        if not shell:
            return "no shell here has `read -t`: a diversion would outlive a killed service"
        path = os.path.join(self.directory, "heartbeat")
        argv = [*shell, SCRIPT, path, self.saved_path, str(SILENCE_S)]
        argv += [str(DIVERTING), str(STANDING)]
        try:
            self._child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
            self._started_s = time.monotonic()
        except OSError as error:
            return because("no_watchdog", of_system(error))
        return ""


def find_shell(environment: Mapping[str, str] | None = None) -> list[str]:
    """A shell whose `read` has a time limit: bash, or BusyBox's; dash has none."""
    path = (environment or os.environ).get("PATH", "/usr/bin:/bin") + ":/bin:/usr/bin"
    for name, more in (("bash", []), ("busybox", ["ash"])):
        for folder in path.split(":"):
            if os.access(os.path.join(folder, name), os.X_OK):
                return [os.path.join(folder, name), *more]
    return []


@dataclass(slots=True)
class ReversePath:
    """The filter of this network namespace. `saved_path` holds a line `device value` each."""

    saved_path: str

    def loosen(self, devices: Collection[str]) -> str:
        """Have exactly these devices loose of those that were strict; '' or why not."""
        saved = self._saved()
        try:
            for name in saved.keys() - set(devices):
                before = saved.pop(name)
                if read_setting(filter_of(name)) == LOOSE:
                    write_setting(filter_of(name), before)
            found = {name: read_setting(filter_of(name)) for name in devices}
            strict_all = read_setting(filter_of("all")) == STRICT
            fresh = {
                name: value
                for name, value in found.items()
                if value == STRICT or (strict_all and value not in ("", LOOSE))
            }
            if fresh or saved != self._saved():
                self._save(saved | fresh)
            for name in fresh:
                write_setting(filter_of(name), LOOSE)
        except OSError as error:
            return because("filter_unset", of_system(error))
        return ""

    def _saved(self) -> dict[str, str]:
        pairs = (line.split() for line in read_or_tell(read_text, self.saved_path, "").splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def _save(self, values: dict[str, str]) -> None:
        if not values:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.saved_path)
            return
        text = "".join(f"{name} {value}\n" for name, value in values.items())
        replace_file(self.saved_path, text.encode(), is_lasting=False)
