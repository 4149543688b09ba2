"""The one place that runs a command: argument vector, deadline, no shell.

Knows nothing of what the commands mean. The command's standard input may hold secrets, so neither
it nor the environment is ever part of an error; arguments must not hold any.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import CommandFailed, TimedOut


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
        child = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"can't run {argv[0]}: {error.strerror}; is it installed?") from error
    data = stdin.encode() if stdin is not None else None
    try:
        out, err = await asyncio.wait_for(child.communicate(data), timeout_s)
    except TimeoutError as error:
        raise TimedOut(f"{argv[0]} did not finish within {timeout_s:g} s") from error
    finally:
        if child.returncode is None:
            # Its children hold its pipes, and wait() would wait for them too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    stdout, stderr = out.decode(errors="replace"), err.decode(errors="replace")
    code = child.returncode if child.returncode is not None else -1
    if check and code != 0:
        said = stderr.strip().splitlines()
        detail = said[0][:200] if said else f"exit status {code}"
        raise CommandFailed(f"{' '.join(argv[:4])} failed: {detail}")
    return Completed(code, stdout, stderr)
