"""The one place that runs a command: argument vector, deadline, no shell.

Knows nothing of what the commands mean. The command's standard input may hold secrets, so neither
it nor the environment is ever part of an error; arguments must not hold any.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from ..errors import CommandFailed, TimedOut
from ..reasons import because, of_system
from ..values import dataclass

MOST_KEPT = 4096
MOST_OUTPUT = 1 << 20
PIPES_S = 0.5


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left: exit status and its output as text."""

    returncode: int
    stdout: str
    stderr: str


async def run(
    argv: Sequence[str], *, stdin: str | None = None, timeout_s: float = 5.0, check: bool = True
) -> Completed:
    """Run a command to its end and return what it left.

    Raises CommandFailed where it can't be started or (with `check`) exits non-zero, TimedOut where
    it passes `timeout_s`; it is killed then, with everything that it started.
    """
    data = stdin.encode() if stdin is not None else None
    feed = asyncio.subprocess.PIPE if data is not None else asyncio.subprocess.DEVNULL
    pipes: dict[str, Any] = {"stdin": feed, "stderr": asyncio.subprocess.PIPE}
    try:
        async with _running(argv, timeout_s, "not_started", **pipes) as child:
            out, err = await _talk(child, data)
    except _TooMuch as error:
        raise CommandFailed(because("program_floods", argv[0], MOST_OUTPUT)) from error
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    code = child.returncode if child.returncode is not None else -1
    if check and code != 0:
        said = stderr.strip().splitlines()
        detail = said[0][:200] if said else because("exit_status", code)
        name = "program_said" if said else "program_failed"
        raise CommandFailed(because(name, " ".join(argv[:4]), detail))
    return Completed(code, stdout, stderr)


async def run_silent(argv: Sequence[str], *, stdin: str | None = None) -> None:
    """Run a command that prints nothing where it succeeds.

    Raises as run() does, and CommandFailed where it prints something all the same.
    """
    if (await run(argv, stdin=stdin)).stdout:
        raise CommandFailed(because("program_prints", " ".join(argv[:4])))


@contextlib.contextmanager
def understood(program: str) -> Iterator[None]:
    """Translate what a parser stumbles over in a program's output, whatever it is."""
    try:
        yield
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
    ) as e:
        raise CommandFailed(because("program_odd", program, type(e).__name__)) from e


class _TooMuch(Exception):
    """A command does not stop printing."""


async def _talk(child: asyncio.subprocess.Process, data: bytes | None) -> tuple[bytes, bytes]:
    """Give a command its input and take both outputs, up to MOST_OUTPUT bytes each."""
    assert child.stdout is not None and child.stderr is not None
    works = [_take(child.stdout), _take(child.stderr)]
    out, err = (asyncio.ensure_future(work) for work in works)
    fed = asyncio.ensure_future(_feed(child.stdin, data))
    try:
        await asyncio.gather(out, err, fed)
    finally:
        for task in (out, err, fed):
            task.cancel()
        await asyncio.gather(out, err, fed, return_exceptions=True)
    return out.result(), err.result()


async def _take(stream: asyncio.StreamReader) -> bytes:
    taken = bytearray()
    while data := await stream.read(65536):
        taken += data
        if len(taken) > MOST_OUTPUT:
            raise _TooMuch
    return bytes(taken)


async def _feed(stream: asyncio.StreamWriter | None, data: bytes | None) -> None:
    if stream is None or data is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it reads no further
        stream.write(data)
        await stream.drain()
    stream.close()


async def run_apart(
    argv: Sequence[str], *, environment: Mapping[str, str], timeout_s: float
) -> Completed:
    """Run a program of the owner's in this environment, and return how it ended.

    Both of its outputs are in `stdout`, up to MOST_KEPT bytes; the rest is thrown away. It ends
    when nothing that it started holds its output any more. Raises as run() does, but never for an
    exit status.
    """
    kept = bytearray()
    nothing, same = asyncio.subprocess.DEVNULL, asyncio.subprocess.STDOUT
    more: dict[str, Any] = {"stdin": nothing, "stderr": same, "env": environment, "cwd": "/"}
    async with _running(argv, timeout_s, **more) as child:
        assert child.stdout is not None
        while data := await child.stdout.read(MOST_KEPT):
            kept += data[: MOST_KEPT - len(kept)]
    code = child.returncode if child.returncode is not None else -1
    return Completed(code, kept.decode(errors="replace"), "")


@contextlib.asynccontextmanager
async def _running(
    argv: Sequence[str], timeout_s: float, told: str = "not_run", **more: Any
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that has ended behind the block: by itself, or killed with all that it started."""
    try:
        child = await _start(argv, stdout=asyncio.subprocess.PIPE, **more)
    except OSError as error:
        raise CommandFailed(because(told, argv[0], of_system(error))) from error
    ended = False
    try:
        async with asyncio.timeout(timeout_s):
            yield child
            await child.wait()
        ended = True
    except TimeoutError as error:
        raise TimedOut(because("program_slow", argv[0], f"{timeout_s:g}")) from error
    finally:
        if not ended:
            await _end(child)


async def _start(argv: Sequence[str], **more: Any) -> asyncio.subprocess.Process:
    """Start a command in a session of its own. Raises OSError where that fails.

    Who is cancelled meanwhile leaves nothing behind; asyncio would end the command alone then, and
    not what it has started by now.
    """
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(*argv, start_new_session=True, **more)
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await _end(await starting)
        raise


async def _end(child: asyncio.subprocess.Process) -> None:
    """Kill a command with all that it started, and close its pipes: somebody may outlive that, or
    there may be more in them than anybody reads.

    wait() waits for who holds the pipes too, unless the command itself has ended before.
    """
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PIPES_S):
                await child.wait()
    finally:
        child._transport.close()  # type: ignore[attr-defined]
    await child.wait()
