"""The one place that runs a command: argument vector, deadline, no shell.

Knows nothing of what the commands mean. The command's standard input may hold secrets, so neither
it nor the environment is ever part of an error; arguments must not hold any.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import CommandFailed, TimedOut

MOST_KEPT = 4096


@dataclass(frozen=True, slots=True)
class Completed:
    """What a command left: exit status and its output as text."""

    returncode: int
    stdout: str
    stderr: str


async def run(
    argv: Sequence[str],
    *,
    stdin: str | None = None,
    timeout_s: float = 5.0,
    check: bool = True,
) -> Completed:
    """Run a command to its end and return what it left.

    Raises CommandFailed where it can't be started or (with `check`) exits non-zero, TimedOut where
    it passes `timeout_s`; it is killed then, with everything that it started.
    """
    try:
        child = await _start(
            argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise CommandFailed(f"can't run {argv[0]}: {error.strerror}; is it installed?") from error
    data = stdin.encode() if stdin is not None else None
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await child.communicate(data)
    except TimeoutError as error:
        raise TimedOut(f"{argv[0]} did not finish within {timeout_s:g} s") from error
    finally:
        if child.returncode is None:
            await _end(child)
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    code = child.returncode if child.returncode is not None else -1
    if check and code != 0:
        said = stderr.strip().splitlines()
        detail = said[0][:200] if said else f"exit status {code}"
        raise CommandFailed(f"{' '.join(argv[:4])} failed: {detail}")
    return Completed(code, stdout, stderr)


async def run_apart(
    argv: Sequence[str], *, environment: Mapping[str, str], timeout_s: float
) -> Completed:
    """Run a program of the owner's in this environment, and return how it ended.

    Both of its outputs are in `stdout`, up to MOST_KEPT bytes; the rest is thrown away. It ends
    when nothing that it started holds its output any more. Raises as run() does, but never for an
    exit status.
    """
    try:
        child = await _start(
            argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            cwd="/",
        )
    except OSError as error:
        raise CommandFailed(f"can't run {argv[0]}: {error.strerror}") from error
    assert child.stdout is not None
    kept, ended = bytearray(), False
    try:
        async with asyncio.timeout(timeout_s):
            while data := await child.stdout.read(MOST_KEPT):
                kept += data[: MOST_KEPT - len(kept)]
            code = await child.wait()
        ended = True
    except TimeoutError as error:
        raise TimedOut(f"{argv[0]} did not finish within {timeout_s:g} s") from error
    finally:
        if not ended:
            await _end(child)
    return Completed(code, kept.decode(errors="replace"), "")


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
    """Kill a command with all that it started: wait() would wait for who holds its pipes too."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    await child.wait()
