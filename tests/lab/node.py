"""One router or host of a laboratory: a set of namespaces that dies with the process that made it.

The node's first process holds a pipe to its maker; when the pipe closes, for whatever reason, the
kernel ends everything inside. The machine's own interfaces and routes are never touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO

FIRST_PROCESS = """\
read -r pid rest </proc/self/stat
mount -t proc none /proc
mount -t sysfs none /sys 2>/dev/null || true
mount -t tmpfs none /run
mkdir /run/wireguard /run/lock
cd /proc/sys/net
for item in all default; do
  echo 0 >ipv4/conf/$item/rp_filter
  echo 0 >ipv6/conf/$item/accept_dad
  echo 0 >ipv6/conf/$item/accept_ra
  echo 1 >ipv6/conf/$item/keep_addr_on_down
done
ip link set lo up
cd /
echo "$pid"
exec cat >/dev/null
"""
"""The pid is read before the node's own /proc hides it: links are moved by the machine's pids.
keep_addr_on_down, because a line that lost its carrier must come back with its addresses."""

PROGRAMS = os.path.join(os.path.dirname(__file__), "programs")
AHEAD = -10
NEEDED = ("unshare", "nsenter", "ip", "nft", "wg")


def program(name: str, *arguments: object, packages: bool = False) -> list[str]:
    """The command that runs one of programs/, with the standard library only or with `packages`."""
    options = ["-P"] if packages else ["-I", "-S"]
    return [sys.executable, *options, f"{PROGRAMS}/{name}.py", *map(str, arguments)]


def timed(argv: Sequence[str]) -> list[str]:
    """The command, ahead of all that a test run computes and starts meanwhile, where root may.

    Tunnels, echo servers and meters are timed: on a busy machine they would be taken for dead.
    """
    return ["nice", "-n", str(AHEAD), *argv] if os.geteuid() == 0 else [*argv]


class LabError(Exception):
    """The laboratory itself failed: the message names the node, the command and what it said."""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables for a node's commands: ours, and the folders where Debian keeps ip and nft."""
    found = dict(os.environ)
    found["PATH"] = found.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"
    found.update(extra or {})
    return found


def missing_tools(wanted: Sequence[str] = NEEDED) -> list[str]:
    """Which of these programs, by default those that a laboratory needs, this machine lacks."""
    path = environment()["PATH"]
    return [tool for tool in wanted if shutil.which(tool, path=path) is None]


def refused() -> str | None:
    """None where this user can make nodes, else a sentence that says what is missing."""
    missing = missing_tools()
    if missing:
        return f"no laboratory without {', '.join(missing)}; `make system` installs them as root"
    try:
        ground = Ground.make()
    except LabError as error:
        return str(error)
    try:
        with contextlib.closing(Node("trial", ground)) as trial:
            trial.run(["ip", "link", "add", "trial0", "type", "veth"])
    except LabError as error:
        return f"no laboratory here: {error}"
    finally:
        ground.close()
    return None


class Ground:
    """What nodes are made on: nothing for root, else one user namespace that all nodes share.

    Without root a node's programs see themselves as root, but the machine's modules can't be
    loaded and only what unprivileged user namespaces allow works (no kernel WireGuard that isn't
    loaded, no priorities, no real devices).
    """

    def __init__(self, holder: subprocess.Popen[str] | None) -> None:
        self._holder = holder

    @classmethod
    def make(cls) -> Ground:
        """Raises LabError where this user may not make namespaces."""
        if os.geteuid() == 0:
            return cls(None)
        holder = _hold(["unshare", "-U", "-r", "sh", "-c", "echo ready; exec cat >/dev/null"])
        if _first_line(holder) != "ready":
            raise LabError(
                "no laboratory without root: this kernel refuses unprivileged user namespaces "
                f"({_end(holder)}); run as root, or allow them "
                "(kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)"
            )
        return cls(holder)

    @property
    def enter(self) -> list[str]:
        """The words before a command that make it run on this ground."""
        if self._holder is None:
            return []
        return ["nsenter", "-t", str(self._holder.pid), "-U", "--preserve-credentials", "--"]

    @property
    def user_options(self) -> list[str]:
        """nsenter's options for a process that lives on this ground."""
        return [] if self._holder is None else ["-U", "--preserve-credentials"]

    def close(self) -> None:
        """End it; nodes on it must be closed before."""
        if self._holder is not None:
            _end(self._holder)


class Child:
    """A program that runs inside a node. Its output goes where popen() was told."""

    def __init__(self, name: str, entered: subprocess.Popen[str]) -> None:
        self.name = name
        self.entered = entered
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The program's own pid as this machine sees it; nsenter's only waits for it."""
        if self._pid is None:
            self._pid = _only_child(self.entered.pid)
        return self._pid

    @property
    def returncode(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self.entered.poll()

    def signal(self, number: int) -> None:
        """Send a signal to the program itself. One that has ended is no error."""
        if self.returncode is None:
            try:
                os.kill(self.pid, number)
            except LabError:
                self.entered.send_signal(number)  # it has not entered yet, or never forks
            except ProcessLookupError:
                pass

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for its end and return the exit status. Raises LabError when it goes on."""
        try:
            return self.entered.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise LabError(f"{self.name} still runs after {timeout_s:g} s") from error

    def stop(self, timeout_s: float = 5.0) -> int:
        """Ask it to end (SIGTERM), end it if it doesn't, and return its exit status."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        try:
            return self._wait_awake(timeout_s)
        except LabError:
            return self.kill()

    def kill(self) -> int:
        """SIGKILL, as a crash would be; returns the exit status."""
        self.signal(signal.SIGKILL)
        return self._wait_awake(10.0)

    def _wait_awake(self, timeout_s: float) -> int:
        """wait() although nsenter stops with its program, as soon as it hears of that."""
        deadline = time.monotonic() + timeout_s
        while self.returncode is None and time.monotonic() < deadline:
            self.entered.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.entered.wait(0.2)
        return self.wait(0.0)


class Node:
    """A router or a host. Use run() for commands that end and popen() for programs that stay."""

    def __init__(self, name: str, ground: Ground) -> None:
        self.name = name
        self._ground = ground
        self._pid: int | None = None
        options = ["-n", "-m", "-p", "-f", "--kill-child"]
        script = ["sh", "-e", "-c", FIRST_PROCESS]
        self._holder = _hold([*ground.enter, "unshare", *options, *script])

    def __repr__(self) -> str:
        return f"Node({self.name!r})"

    @property
    def pid(self) -> int:
        """The first process as this machine sees it; waits for it the first time.

        Raises LabError where the node could not be made.
        """
        if self._pid is None:
            line = _first_line(self._holder)
            if not line.isdigit():
                raise LabError(f"can't make node {self.name}: {_end(self._holder)}")
            self._pid = int(line)
        return self._pid

    @property
    def namespace(self) -> str:
        """The name that the kernel gives to the node's network, such as net:[4026532201]."""
        return os.readlink(f"/proc/{self.pid}/ns/net")

    def inside(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in the node."""
        user = self._ground.user_options
        return ["nsenter", "-t", str(self.pid), *user, "-n", "-m", "-p", "--", *argv]

    def on_wire(self, argv: Sequence[str]) -> list[str]:
        """The command that runs `argv` in the node's network, but sees the machine's pids."""
        user = self._ground.user_options
        return ["nsenter", "-t", str(self.pid), *user, "-n", "--", *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        input: str | None = None,
        timeout_s: float = 30.0,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the node to its end.

        Raises LabError where it takes longer or (with `check`) exits non-zero.
        """
        return self._finish(self.inside(argv), argv, input, timeout_s, check)

    def sh(self, script: str, *, timeout_s: float = 30.0) -> str:
        """Run shell lines in the node, stopping at the first that fails; returns their output."""
        return self.run(["sh", "-e", "-c", script], timeout_s=timeout_s).stdout

    def ip(self, *commands: str) -> None:
        """Run these `ip` commands, without that word, in one process; stops at what fails."""
        self.run(["ip", "-batch", "-"], input="\n".join(commands))

    def ask(self, name: str, *arguments: object, timeout_s: float = 20.0) -> str:
        """What one of programs/ prints that is run in the node."""
        return self.run(program(name, *arguments), timeout_s=timeout_s).stdout.strip()

    def nft(self, ruleset: str) -> None:
        """Load nftables rules."""
        self.run(["nft", "-f", "-"], input=ruleset)

    def filter(self, hook: str, *rules: str, table: str = "fault", priority: int = 0) -> None:
        """Have these nft rules alone in a chain at a hook, in a table of its own; none ends it."""
        ruleset = f"table inet {table}\ndelete table inet {table}\n"
        if rules:
            chain = f"type filter hook {hook} priority {priority};"
            lines = "\n".join((chain, *rules))
            ruleset += f"table inet {table} {{\nchain c {{\n{lines}\n}}\n}}"
        self.nft(ruleset)

    def popen(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[str] | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = subprocess.DEVNULL,
        stderr: int | IO[str] | None = subprocess.DEVNULL,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start a program in the node. It ends with the node at the latest."""
        entered = subprocess.Popen(
            self.inside(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=environment(env),
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        return Child(f"{argv[0]} in {self.name}", entered)

    def sysctl(self, name: str, value: int | str) -> None:
        """Set a kernel setting of the node, `name` with slashes: net/ipv4/ip_forward."""
        self.sh(f"echo '{value}' >/proc/sys/{name}")

    def addresses(self, device: str) -> list[str]:
        """The device's global addresses with their lengths, such as 192.0.2.1/30."""
        words = self.run(["ip", "-o", "addr", "show", "dev", device, "scope", "global"]).stdout
        return [line.split()[3] for line in words.splitlines()]

    def resolvers(self, *servers: str) -> None:
        """Give the node an /etc/resolv.conf of its own with these servers."""
        lines = "".join(f"nameserver {server}\n" for server in servers)
        self.run(["sh", "-c", "cat >/run/resolv.conf"], input=lines)
        mounted = "grep -q ' /etc/resolv.conf ' /proc/mounts"
        self.sh(f"{mounted} || mount --bind /run/resolv.conf /etc/resolv.conf")

    def close(self) -> None:
        """End everything inside. Calling it again is no error."""
        _end(self._holder)

    def _finish(
        self,
        command: list[str],
        argv: Sequence[str],
        input: str | None,
        timeout_s: float,
        check: bool,
    ) -> subprocess.CompletedProcess[str]:
        said = " ".join(argv)[:200]
        pipe = subprocess.PIPE
        started = subprocess.Popen(
            command,
            stdin=pipe if input is not None else subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=environment(),
        )
        try:
            out, err = started.communicate(input, timeout_s)
        except subprocess.TimeoutExpired as error:
            Child(said, started).kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # what it began may hold its pipes
                started.communicate(timeout=5.0)
            raise LabError(f"{self.name}: {said} took longer than {timeout_s:g} s") from error
        if check and started.returncode != 0:
            detail = (err or out).strip()[-1000:] or f"exit {started.returncode}"
            raise LabError(f"{self.name}: {said} failed: {detail}")
        return subprocess.CompletedProcess(list(argv), started.returncode, out, err)


def join(near: Node, near_device: str, far: Node, far_device: str) -> None:
    """Lay a cable (a veth pair) between two nodes and switch both ends on.

    It is made inside the near node and its other end moved by pid, so the machine's own network
    never sees it.
    """
    made = f"link add {near_device} type veth peer name {far_device} netns {far.pid}"
    words = ["ip", "-batch", "-"]
    near._finish(near.on_wire(words), words, f"{made}\nlink set {near_device} up", 10.0, True)
    far.ip(f"link set {far_device} up")


def _hold(command: list[str]) -> subprocess.Popen[str]:
    # A session of its own: Ctrl-C in a terminal reaches the maker, which then ends its nodes.
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def _first_line(holder: subprocess.Popen[str]) -> str:
    return holder.stdout.readline().strip() if holder.stdout else ""


def _end(holder: subprocess.Popen[str]) -> str:
    """Close the pipe, wait until all is gone, and return what the holder had to say."""
    if holder.stdin:
        with contextlib.suppress(OSError):
            holder.stdin.close()
    try:
        holder.wait(5.0)
    except subprocess.TimeoutExpired:
        holder.kill()
        holder.wait(5.0)
    said = ""
    for stream in (holder.stderr, holder.stdout):
        if stream and not stream.closed:
            os.set_blocking(stream.fileno(), False)  # what outlived it may hold the other end
            with contextlib.suppress(OSError, TypeError):
                said = said or stream.read().strip()
            stream.close()
    return said or f"exit status {holder.returncode}"


def _only_child(parent: int, timeout_s: float = 20.0) -> int:
    """The pid of a process's child, read from /proc. Raises LabError when none appears."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        for entry in os.listdir("/proc"):
            if entry.isdigit() and _parent_of(entry) == parent:
                return int(entry)
        time.sleep(0.002)
    raise LabError(f"process {parent} has no child; has it ended?")


def _parent_of(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])
    except (OSError, IndexError):
        return None
