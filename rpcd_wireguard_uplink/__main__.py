"""`rpcd-wireguard-uplink serve` and `uninstall`: the command line of the service itself."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from .schema.lean import leaving_out

with leaving_out("ssl", "_hashlib", "bz2", "lzma"):
    import asyncio  # noqa: F401
    import hashlib  # noqa: F401
    import shutil  # noqa: F401

from .daemon import Options, run, uninstall


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the arguments and do what they say; returns the exit status."""
    parser = argparse.ArgumentParser(prog="rpcd-wireguard-uplink", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="publish luci.wireguard-dashboard and do the work")
    back = commands.add_parser(
        "uninstall", help="take back all that the service made; its configuration and keys stay"
    )
    default = Options()
    for command in (serve, back):
        command.add_argument(
            "--platform", choices=("auto", "openwrt", "standalone"), default=default.platform
        )
        command.add_argument("--socket", metavar="PATH", default=default.socket, help="the bus")
        command.add_argument("--config-dir", metavar="DIR", default=default.config_dir)
        command.add_argument("--keys-dir", metavar="DIR", default=default.keys_dir)
        command.add_argument("--state-file", metavar="FILE", default=default.state_file)
        command.add_argument("--verbose", action="store_true", help="log more")
    serve.add_argument("--hooks-dir", metavar="DIR", default=default.hooks_dir)
    serve.add_argument(
        "--broker", action="store_true", help="run a bus of our own at the socket (no ubusd there)"
    )
    given = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.DEBUG if given.verbose else logging.INFO,
        format="%(name)s: %(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    options = Options(
        platform=given.platform,
        socket=given.socket,
        config_dir=given.config_dir,
        keys_dir=given.keys_dir,
        state_file=given.state_file,
    )
    if given.command == "uninstall":
        return uninstall(options)
    return run(replace(options, hooks_dir=given.hooks_dir, broker=given.broker))


if __name__ == "__main__":
    sys.exit(main())
