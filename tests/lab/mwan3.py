"""A consumer that OpenWrt's own netifd, procd and mwan3 look after, where they are on PATH.

Owns where their files are found, below the root that has the mwan3 on PATH, wherever it was
unpacked, and how they are started: on an overlay of the machine's root.
"""

from __future__ import annotations

import os
import shutil

from .network import ConsumerNetwork
from .node import environment, missing_tools
from .overlay import TOP, inside, lay_over

PROGRAMS = ("ubusd", "ubus", "uci", "jshn", "jsonfilter", "procd", "netifd")
HELPERS = ("iptables", "ip6tables", "ipset", "busybox", "logger", "flock")
FILES = (
    "etc/config/mwan3",
    "etc/hotplug.d/iface/15-mwan3",
    "etc/init.d/mwan3",
    "etc/rc.common",
    "lib/config/uci.sh",
    "lib/functions.sh",
    "lib/functions",
    "lib/mwan3",
    "sbin/hotplug-call",
    "usr/sbin/mwan3",
    "usr/sbin/mwan3rtmon",
    "usr/sbin/mwan3track",
    "usr/share/libubox/jshn.sh",
)
TRACKED = ("1.0.0.1", "208.67.222.222", "208.67.220.220")
"""What mwan3 asks as it is shipped, besides the 1.1.1.1 that the pretend internet has."""
NETWORK = """\
config interface 'loopback'
	option device 'lo'
	option proto 'static'
	list ipaddr '127.0.0.1/8'

config interface 'lan'
	option device 'lan'
	option proto 'static'
	list ipaddr '192.168.1.1/24'
"""
WAN = """
config interface '{name}'
	option device '{wan.device}'
	option proto 'static'
	list ipaddr '{wan.address4}/29'
	option gateway '{wan.gateway4}'
	option metric '{wan.metric}'
"""
BOTH = """\
set mwan3.wanb.enabled=1
delete mwan3.https
set mwan3.default_rule_v4.use_policy=wan_wanb
"""
TIGHT = """\
set mwan3.{name}.reliability=1
set mwan3.{name}.timeout=1
set mwan3.{name}.interval=1
set mwan3.{name}.down=3
set mwan3.{name}.up=3
delete mwan3.{name}.track_ip
add_list mwan3.{name}.track_ip=1.1.1.1
"""
SETUP = """\
(cd {root}; tar -c {files}) | tar -x --no-same-owner --keep-directory-symlink -C {top}
ln -sf {programs} {top}/usr/sbin/
ln -sf {busybox} {top}/bin/sh
ln -sf {busybox} {top}/usr/bin/ping
mkdir -p {top}/run/ubus {top}/run/state {top}/tmp/resolv.conf.d
ln -sfn /run/state {top}/var/state
"""
"""Its scripts are written for BusyBox's shell and ping; Debian's ping can't set marks."""


def missing() -> list[str]:
    """What is not here of what it needs: programs on PATH, and files beside mwan3."""
    if missing_tools(["mwan3"]):
        return ["mwan3"]
    files = [file for file in FILES if not os.path.exists(os.path.join(_root(), file))]
    return missing_tools((*PROGRAMS, *HELPERS)) + files


def begin(network: ConsumerNetwork, tight: bool = False) -> None:
    """Steer the consumer's two WANs by its policy wan_wanb: by the second where the first is lost.

    Its other settings are as shipped, or `tight` as owners make them: one target, a ping each
    second, three losses. Its rule for HTTPS is left out, whose kind of set few kernels have.
    """
    node, lab = network.consumer, network.lab
    wans = {"wan": network.wan, "wanb": network.wan2}
    network.internet.ip(*(f"addr add {address}/32 dev lo" for address in TRACKED))
    lay_over(lab, node)
    words = {
        "root": _root(),
        "files": " ".join(FILES),
        "programs": " ".join(map(_found, PROGRAMS)),
        "busybox": _found("busybox"),
        "top": TOP,
    }
    node.sh(SETUP.format(**words))
    text = NETWORK + "".join(WAN.format(name=name, wan=wan) for name, wan in wans.items())
    node.run(inside("tee", "/etc/config/network"), input=text)
    changes = BOTH + "".join(TIGHT.format(name=name) for name in wans if tight)
    node.run(inside("uci", "batch"), input=changes + "commit mwan3\n")
    for argv in (["ubusd"], ["procd", "-S"], ["netifd"]):
        log = open(lab.path("mwan3", argv[0]), "w", encoding="utf-8")  # noqa: SIM115
        lab.at_close(node.popen(inside(*argv), stdout=log, stderr=log))
        node.sh(f"until [ -e {TOP}/run/ubus/ubus.sock ]; do sleep 0.05; done", timeout_s=10.0)
    node.run(inside("ubus", "wait_for", "service", "network.interface.wanb"))
    node.run(inside("/etc/init.d/mwan3", "start"))


def _found(name: str) -> str:
    return os.path.abspath(shutil.which(name, path=environment()["PATH"]) or name)


def _root() -> str:
    return os.path.realpath(os.path.join(_found("mwan3"), "../../.."))
