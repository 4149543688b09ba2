"""A line that takes its time, as by satellite: the round trip of everything, ARP included.

delay.py carries the frames, in the ISP's node, where the line is cut in two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from .lab import Lab, ready
from .line import Line

SCRIPT = os.path.join(os.path.dirname(__file__), "delay.py")


def lengthen(lab: Lab, line: Line, round_trip_s: float) -> None:
    """Make the line so long from now on; its faults are made as before."""
    isp, far, near, middle = line.isp, line.isp_device, "slow0", "slow1"
    isp.sh(
        f"ip link set {far} down\nip addr flush dev {far}\nip link set {far} name {near}\n"
        f"ip link add {far} type veth peer name {middle}\n"
        f"echo 1 >/proc/sys/net/ipv6/conf/{near}/disable_ipv6\n"
        f"echo 1 >/proc/sys/net/ipv6/conf/{middle}/disable_ipv6\n"
        f"ip link set {near} arp off up\nip link set {middle} arp off up\nip link set {far} up\n"
        f"ip addr add {line.gateway4}/29 dev {far}\n"
        f"ip addr add {line.gateway6}/64 dev {far} nodad"
    )
    python = [sys.executable, "-I", "-S", SCRIPT]
    for node, device in ((line.router, line.device), (isp, far)):
        node.run([*python, json.dumps({"whole": device})])
    wanted = json.dumps({"ports": [near, middle], "delay_s": round_trip_s / 2})
    pipe = subprocess.PIPE
    ready(lab.at_close(isp.popen([*python, wanted], stdout=pipe, stderr=pipe)))
