"""A node's own copy of this machine's root, in which it may change what it likes.

The machine's root is the lower layer: its programs run, its files are never written. All that is
changed ends with the node.
"""

from __future__ import annotations

from .lab import Lab
from .node import Node

TOP = "/mnt"
SETUP = """\
mount -t tmpfs none {lower}
mkdir {lower}/upper {lower}/work
mount -t overlay overlay -o lowerdir=/,upperdir={lower}/upper,workdir={lower}/work {top}
mount --rbind /proc {top}/proc
mount --rbind /sys {top}/sys
mount --rbind /dev {top}/dev
mount -t tmpfs none {top}/run
mkdir {top}/run/lock
"""


def lay_over(lab: Lab, node: Node) -> None:
    """Mount it at the node's TOP, with a /run of its own."""
    lower = lab.path(f"overlay-{node.name}", "")
    node.sh(SETUP.format(lower=lower, top=TOP), timeout_s=30)


def inside(*argv: str) -> list[str]:
    """The command that runs `argv` there."""
    return ["chroot", TOP, *argv]
