"""Packaging: the metadata of setup.cfg, `pip install .` and `make install`."""

from __future__ import annotations

import configparser
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.repo import PACKAGE, ROOT

SPECIFIED = {
    "enabled": "1",
    "auto_failover": "1",
    "min_uplinks": "2",
    "check_interval": "30",
    "failover_timeout": "10",
    "prefer_latency": "1",
}


SITE = "usr/lib/python3.11/site-packages"
BUILD = "import setuptools.build_meta as it, sys; it.build_wheel(sys.argv[1])"


@pytest.fixture(scope="module")
def metadata() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def names(text: str) -> set[str]:
    """The projects of a list of requirements."""
    return {line.split(">")[0].split("<")[0].strip() for line in text.split("\n") if line.strip()}


def files_below(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_extras(metadata: configparser.ConfigParser) -> None:
    extras = metadata["options.extras_require"]
    assert names(metadata["options"]["install_requires"]) == {"jsonschema", "h11"}
    assert names(extras["interop"]) == {"ubus"}
    assert names(extras["mqtt"]) == {"paho-mqtt"}
    assert names(extras["signing"]) == {"PyNaCl"}
    assert "ubus" not in names(extras["test"]), "it can't be built without libubus"
    assert {"pytest", "pytest-xdist", "hypothesis", "ruff", "mypy"} <= names(extras["test"])


def test_console_scripts_exist(metadata: configparser.ConfigParser) -> None:
    scripts = metadata["options.entry_points"]["console_scripts"].split("\n")
    found = dict(tuple(line.split(" = ")) for line in scripts if line)
    assert set(found) == {"wgctl", "rpcd-wireguard-uplink"}
    for entry in found.values():
        module, _, function = entry.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.deep
def test_a_removed_module_stays_removed(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(PACKAGE, checkout / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    gone = checkout / PACKAGE.name / "gone.py"

    def build(target: str) -> set[str]:
        """The files of the wheel that `pip install .` asks for."""
        words = [sys.executable, "-c", BUILD, str(tmp_path / target)]
        done = subprocess.run(words, cwd=checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        [wheel] = (tmp_path / target).glob("*.whl")
        return set(zipfile.ZipFile(wheel).namelist())

    gone.write_text("")
    assert f"{PACKAGE.name}/gone.py" in build("first")
    gone.unlink()
    second = build("second")
    assert f"{PACKAGE.name}/gone.py" not in second
    inner = ("errors.py", "ubus/__init__.py", "steering/watchdog.sh")
    assert {f"{PACKAGE.name}/{name}" for name in inner} <= second


def test_the_layout_of_a_router(laid_out: Path) -> None:
    source = {name for name in files_below(PACKAGE) if name.endswith((".py", ".sh"))}
    assert "steering/watchdog.sh" in source
    assert files_below(laid_out / SITE / PACKAGE.name) == source
    assert os.listdir(laid_out / SITE) == [PACKAGE.name]
    for folder, target in (("acl.d", "usr/share/rpcd/acl.d"), ("htdocs", "www"), ("root", ".")):
        if (ROOT / folder).is_dir():
            assert files_below(ROOT / folder) <= files_below(laid_out / target)
    assert not [path for path in laid_out.rglob("*") if path.name in {"tests", "__pycache__"}]


def test_the_configuration_has_the_specified_options(laid_out: Path) -> None:
    text = (laid_out / "etc/config/wireguard-uplink").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines()]
    assert ["config", "wireguard-uplink", "'uplink'"] in lines
    found = {words[1]: words[2].strip("'") for words in lines if words[:1] == ["option"]}
    assert found == SPECIFIED


@pytest.mark.parametrize("script", ["wgctl", "rpcd-wireguard-uplink"])
def test_an_installed_command_runs(laid_out: Path, script: str) -> None:
    path = laid_out / "usr/bin" / script
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/python3\n")
    variables = {"PYTHONPATH": str(laid_out / SITE), "PYTHONDONTWRITEBYTECODE": "1"}
    words = [sys.executable, str(path), "--help"]
    done = subprocess.run(
        words, env=os.environ | variables, cwd=laid_out, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()
