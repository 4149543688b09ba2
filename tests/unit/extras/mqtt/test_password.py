"""The MQTT password's file: what a login that may edit the configuration can name, and gets."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rpcd_wireguard_uplink.config.options import MqttSettings
from rpcd_wireguard_uplink.errors import ConfigError
from rpcd_wireguard_uplink.extras.mqtt.password import Password

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's file")
SECRET = "hunter2"


@pytest.fixture
def settings(tmp_path: Path) -> MqttSettings:
    """A password as its owner would keep it."""
    folder = tmp_path / "etc"
    (folder / "keys").mkdir(parents=True)
    for name in ("mqtt-password", "keys/wgup_nodea.key", "../outside"):
        (folder / name).write_text(f"{SECRET}\nmore\n")
        (folder / name).chmod(0o600)
    path = str(folder / "mqtt-password")
    return MqttSettings(True, "mqtt.example.com", 8883, "me", path, tls=True)


def refusal(settings: MqttSettings, path: Path | str) -> str:
    folder = Path(settings.password_file).parent
    with pytest.raises(ConfigError) as caught:
        Password(replace(settings, password_file=str(path)), str(folder)).read()
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_the_first_line_is_the_password(settings: MqttSettings) -> None:
    folder = str(Path(settings.password_file).parent)
    assert Password(settings, folder).read() == SECRET.encode()
    deeper = Path(folder) / "mqtt" / "password"
    deeper.parent.mkdir()
    deeper.write_bytes(b"caf\xe9\r\n")
    deeper.chmod(0o600)
    assert Password(replace(settings, password_file=str(deeper)), folder).read() == b"caf\xe9"


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "keys/wgup_nodea.key",
        "link-outside",
        "link-keys",
        "mqtt-password/../keys/wgup_nodea.key",
        ".",
        "keys",
        "..",
    ],
)
def test_no_other_file_of_roots_is_sent(settings: MqttSettings, name: str) -> None:
    folder = Path(settings.password_file).parent
    (folder / "link-outside").symlink_to(folder.parent / "outside")
    (folder / "link-keys").symlink_to("keys/wgup_nodea.key")
    assert "password_file" in refusal(settings, f"{folder}/{name}")
    assert "password_file" in refusal(settings, "/etc/shadow")


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        pytest.param(lambda path: path.chmod(0o640), "chmod 600", id="readable"),
        pytest.param(lambda path: os.chown(path, 99, 99), "not root's", marks=AS_ROOT, id="others"),
        pytest.param(lambda path: path.write_text(""), "empty or not there", id="empty"),
        pytest.param(lambda path: path.unlink(), "empty or not there", id="gone"),
    ],
)
def test_only_a_private_file_of_roots_is_used(
    settings: MqttSettings, spoil: Callable[[Path], None], told: str
) -> None:
    path = Path(settings.password_file)
    spoil(path)
    assert told in refusal(settings, path)


@pytest.mark.parametrize(
    "changes",
    [{"host": "evil.example"}, {"given_port": 1883}, {"tls": False}],
    ids=lambda c: str(*c),
)
def test_a_password_goes_to_the_broker_that_it_opened_and_to_no_other(
    settings: MqttSettings, changes: dict[str, object]
) -> None:
    path = Path(settings.password_file)
    folder = str(path.parent)
    Password(settings, folder).opened()
    told = refusal(replace(settings, **changes), path)  # type: ignore[arg-type]
    assert "mqtt.example.com port 8883" in told and f"remove {path}.broker" in told
    Password(replace(settings, host="evil.example"), folder).opened()
    assert Password(settings, folder).read() == SECRET.encode(), "what is noted stays"
    Path(f"{path}.broker").unlink()
    assert Password(replace(settings, **changes), folder).read() == SECRET.encode()  # type: ignore[arg-type]


def test_more_encryption_is_no_other_broker(settings: MqttSettings) -> None:
    folder = str(Path(settings.password_file).parent)
    Password(replace(settings, tls=False), folder).opened()
    assert Password(settings, folder).read() == SECRET.encode()
