"""The service's log: each line keeps its level, in syslog and in systemd's journal."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import syslog

import pytest

from rpcd_wireguard_uplink.command_line import Options, command_line, plain_options
from rpcd_wireguard_uplink.errors import NotSupported
from rpcd_wireguard_uplink.service import _log_handler, require_libraries

LEVELS = [
    (logging.DEBUG, syslog.LOG_DEBUG),
    (logging.INFO, syslog.LOG_INFO),
    (logging.WARNING, syslog.LOG_WARNING),
    (logging.ERROR, syslog.LOG_ERR),
    (logging.CRITICAL, syslog.LOG_ERR),
]


def record(level: int, text: str = "said") -> logging.LogRecord:
    return logging.LogRecord("wireguard-uplink", level, __file__, 1, text, None, None)


@pytest.mark.parametrize(("level", "expected"), LEVELS)
def test_syslog_and_the_journal_get_the_level(
    monkeypatch: pytest.MonkeyPatch, level: int, expected: int
) -> None:
    """The journal reads it in front of each line."""
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "openlog", lambda *_: None)
    monkeypatch.setattr(syslog, "syslog", lambda *words: told.append(words))
    _log_handler(to_syslog=True).emit(record(level))
    assert told == [(expected, "said")]
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    text = _log_handler(to_syslog=False).format(record(level, "one\ntwo"))
    assert text == f"<{expected}>one\n<{expected}>two"


def test_people_read_the_name_of_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    said = _log_handler(to_syslog=False).format(record(logging.INFO))
    assert said == "wireguard-uplink: INFO: said"


def test_signals_that_come_before_the_service_is_loaded_harm_nothing() -> None:
    script = (
        "import sys, time, types, rpcd_wireguard_uplink as package\n"
        "from rpcd_wireguard_uplink.__main__ import main\n"
        "run = lambda *given: (print('loading', flush=True), time.sleep(30), sys.exit(1))\n"
        "package.service = types.SimpleNamespace(run=run)\n"
        "main(['serve', '--socket', '/nowhere'])\n"
    )
    words = [sys.executable, "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "loading\n"
        child.send_signal(signal.SIGHUP)
        child.send_signal(signal.SIGTERM)
    assert child.returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        "serve",
        "serve --syslog",
        "serve --platform standalone --broker --verbose",
        "serve --socket /a --config-dir b --keys-dir c --state-file d --hooks-dir e",
    ],
)
def test_a_usual_start_is_read_as_argparse_reads_it(words: str) -> None:
    found = plain_options(words.split())
    assert found == command_line().parse_args(words.split(), Options())


@pytest.mark.parametrize(
    "words",
    [
        *("", "uninstall", "--help", "serve --help", "serve --socket", "serve --platform x"),
        *("serve extra", "serve --socket=/a", "serve --keys_dir /a", "serve --command x"),
        "serve --socket --broker",
    ],
)
def test_all_else_is_for_argparse(words: str) -> None:
    assert plain_options(words.split()) is None


def test_a_library_that_is_lacking_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is loaded with the first call that needs it, which would be too late to say so."""
    require_libraries()
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    with pytest.raises(NotSupported, match=r"jsonschema can't be found: .* python3-jsonschema"):
        require_libraries()
