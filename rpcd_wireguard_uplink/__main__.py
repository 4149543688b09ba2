"""Starts the service, or takes it back.

The object is put on the bus before the event loop and all else is loaded, which takes seconds on a
slow router: calls that come meanwhile wait for their answer.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from .api import methods
from .command_line import Options, command_line, plain_options
from .errors import Status, UplinkError
from .ubus import BusObject, Reply
from .ubus.blocking import BlockingBus


def main(argv: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if argv is None else argv
    given = plain_options(words) or command_line().parse_args(words, Options())
    bus = None
    if given.command == "serve":
        # Until somebody listens for them: nothing is made yet, and the configuration not yet read.
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        bus = None if given.broker else published(given.socket)
    from . import service

    return service.uninstall(given) if given.command == "uninstall" else service.run(given, bus)


def published(socket: str) -> BlockingBus | None:
    """The bus with our object on it; None where that takes more: there is no bus, or the name is
    the dashboard's or somebody else's.
    """
    if os.path.exists(methods.PLUGIN):
        return None
    signatures = {name: methods.signature(each) for name, each in methods.METHODS.items()}
    ours = BusObject(methods.OBJECT, signatures, lambda call: Reply(status=Status.TIMEOUT))
    try:
        bus = BlockingBus(socket, methods.JOIN_TIMEOUT_S)
        if bus.add(ours)[0] == Status.OK:
            return bus
        bus.close()
    except UplinkError:
        pass  # who tries again says what is wrong
    return None


if __name__ == "__main__":
    sys.exit(main())
