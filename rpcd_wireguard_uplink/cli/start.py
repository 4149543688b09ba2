"""The command that starts the service on this machine."""

from __future__ import annotations

import os

UNIT = "wireguard-uplink.service"
_UNIT_FOLDERS = ("etc/systemd/system", "usr/lib/systemd/system", "lib/systemd/system")


def is_openwrt(root: str = "/") -> bool:
    return os.path.exists(os.path.join(root, "etc/openwrt_release"))


def start_command(action: str = "start", root: str = "/") -> str:
    """The init script on OpenWrt; systemd's unit where it is installed; else the program itself."""
    if is_openwrt(root):
        return f"/etc/init.d/wireguard-uplink {action}"
    has_unit = any(os.path.exists(os.path.join(root, f, UNIT)) for f in _UNIT_FOLDERS)
    if has_unit and os.path.isdir(os.path.join(root, "run/systemd/system")):
        return f"systemctl {action} wireguard-uplink"
    return "rpcd-wireguard-uplink serve --platform standalone --broker"
