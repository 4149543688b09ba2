"""fw4 as a program: what it has in force, and having it read its configuration.

Owns its commands and what they leave unsaid. Does not know what any section is for.
"""

from __future__ import annotations

from ..errors import CommandFailed
from ..system import process

FIREWALL = "firewall"
INIT = "/etc/init.d/firewall"
RENDER_S = 20.0  # a slow router renders its rules for seconds


async def has_zone(zone: str) -> bool:
    """Whether fw4 has a zone of that name in force.

    Its chain alone proves nothing: a reload only empties the chains of a zone that is gone.
    """
    return "jump" in await _chain(f"input_{zone}")


async def reload() -> None:
    """Put /etc/config/firewall in force, in one transaction of nft's.

    Rendered and checked first, because a reload that nft refuses ends with status 0 (fw4, start).
    Where fw4 isn't running nothing is reloaded: it will read its file when it starts. Raises
    CommandFailed, with the rules in force as they were.
    """
    checked = await process.run(["fw4", "check"], timeout_s=RENDER_S, check=False)
    if checked.returncode != 0:
        raise CommandFailed("fw4 refuses /etc/config/firewall: `fw4 check` tells why")
    done = await process.run([INIT, "reload"], timeout_s=RENDER_S, check=False)
    if done.returncode != 0 and await _chain("input"):
        raise CommandFailed(f"`{INIT} reload` failed: `{INIT} restart` tells why, or mends it")


async def _chain(chain: str) -> str:
    """A chain of fw4's as nft prints it, '' where there is none."""
    argv = ["nft", "list", "chain", "inet", "fw4", chain]
    return (await process.run(argv, check=False)).stdout
