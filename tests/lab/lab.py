"""A laboratory: its nodes, its servers and a folder, all gone when it closes.

A sweeper process holds a pipe to this one and removes the folder even when this process is killed;
the nodes have pipes of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from types import TracebackType

from .node import Child, Ground, LabError, Node, environment, program, timed

SWEEP = 'cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf -- "$1" && break; sleep 0.1; done'


class Lab:
    """A context manager. `folder` is seen at the same path by this process and by all nodes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.folder = tempfile.mkdtemp(prefix="wgup-lab-")
        self._sweeper = subprocess.Popen(
            ["sh", "-c", SWEEP, "sh", self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )
        self._closing = contextlib.ExitStack()
        try:
            self._ground = Ground.make()
        except LabError:
            self._end()
            raise
        self._closing.callback(self._ground.close)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def node(self, name: str) -> Node:
        """A new node, which may not be ready yet: its first use waits for it."""
        made = Node(name, self._ground)
        self._closing.callback(made.close)
        self.nodes.append(made)
        return made

    def path(self, *parts: str) -> str:
        """A path below the folder; the folders above it are made."""
        found = os.path.join(self.folder, *parts)
        os.makedirs(os.path.dirname(found), exist_ok=True)
        return found

    def at_close(self, child: Child) -> Child:
        """Have a program reaped when the laboratory closes, before its node goes."""
        self._closing.callback(_reap, child)
        return child

    def start(
        self,
        node: Node,
        name: str,
        *arguments: object,
        packages: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> Child:
        """Start one of programs/ in a node; it has said `ready` when this returns."""
        argv, pipe = program(name, *arguments, packages=packages), subprocess.PIPE
        child = self.at_close(node.popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, env=env))
        ready(child)
        return child

    def serve(
        self,
        node: Node,
        *,
        echo: Sequence[str] = (),
        dns: Sequence[str] = (),
        answers: Sequence[str] = (),
    ) -> Child:
        """Start the echo and DNS server (echo.py) on these addresses of a node.

        It is ready when ready() was called with the result. Echo is on port 7, DNS on 53.
        """
        wanted = {
            "echo": [[address, 7] for address in echo],
            "dns": [[address, 53] for address in dns],
            "answers": list(answers),
        }
        argv = timed(program("echo", json.dumps(wanted)))
        return self.at_close(node.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE))

    def close(self) -> None:
        """End all programs and nodes and remove the folder. Calling it again is no error."""
        try:
            self._closing.close()
        finally:
            self._end()

    def _end(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._sweeper.stdin:
            self._sweeper.stdin.close()
        self._sweeper.wait(10.0)


def ready(server: Child) -> None:
    """Wait until a server started by Lab.serve() answers. Raises LabError where it can't."""
    out, err = server.entered.stdout, server.entered.stderr
    if out is None or err is None or out.readline().strip() != "ready":
        said = err.read().strip()[-500:] if err else ""
        raise LabError(f"{server.name} did not start: {said}")


def _reap(child: Child) -> None:
    child.kill()
    for stream in (child.entered.stdin, child.entered.stdout, child.entered.stderr):
        if stream:
            with contextlib.suppress(OSError):
                stream.close()
