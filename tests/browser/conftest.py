"""One browser and one web server for all tests here; laboratories as elsewhere."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking

PROGRAMS = ("chromium", "chromedriver")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "home(*uplinks, trusted): how the router is to be")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """Chromium, ended by its driver."""
    for program in PROGRAMS:
        if shutil.which(program) is None:
            lacking(f"{program} is not on PATH; `make system` installs it")
    try:
        from .page import open_browser
    except ModuleNotFoundError as error:
        lacking(f"{error.name} is not installed; `make test` installs it")
    program, driver = (shutil.which(name) or "" for name in PROGRAMS)
    with open_browser(program, driver, tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture
def page(browser) -> Iterator[object]:
    """The browser's window. A test fails where the browser complains of what a page did."""
    from .page import Page

    opened = Page(browser)
    opened.log()
    yield opened
    complaints = opened.log()
    opened.close()
    assert not complaints


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., object]]:
    """Gives each gateway a place at the web server."""
    from .site import Site

    site = Site.open()
    yield site.serve
    site.close()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where pictures go: the folder that SCREENSHOTS names, else one that is thrown away."""
    return Path(os.environ.get("SCREENSHOTS") or tmp_path)
