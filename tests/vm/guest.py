"""Plays scenes inside the machine and says a row for each thing that was seen: see __main__.py."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

from tests.lab.lab import Lab
from tests.lab.network import consumer_network
from tests.lab.provider import make_providers
from tests.lab.router import Router, settings

from . import scenes

SCENES = {
    "wireguard": scenes.kernel_wireguard,
    "vrf": scenes.beside_a_vrf,
    "offload": scenes.flow_offload,
    "pppoe": scenes.pppoe_wan,
}


def say(scene: str, what: str, result: str, seconds: float) -> None:
    print("row " + json.dumps([scene, what, result, seconds]), flush=True)


def start(router: Router) -> scenes.Rows:
    """The service, until traffic goes by the WAN and the uplink could take over."""
    took_s = router.service.start(timeout_s=scenes.LONG_S)
    yield "the service answers", "yes", took_s
    began = time.monotonic()
    router.wait_primary(scenes.LONG_S)
    yield "the uplink could take over", "yes", time.monotonic() - began


def play(router: Router, wanted: Sequence[str]) -> None:
    """Play these scenes one after another; one that fails does not keep others from being tried."""
    for name, scene in {"start": start, **{each: SCENES[each] for each in wanted}}.items():
        began = time.monotonic()
        try:
            for row in scene(router):
                say(name, *row)
        except Exception as error:
            told = f"FAILS: {type(error).__name__}: {error}"
            say(name, "the scene", told[:3000], time.monotonic() - began)
            print(router.service.log())
            router.network.wan.restore()


def main() -> int:
    """Play the scenes that are named, or all, on one router."""
    wanted = sys.argv[1].split(",") if sys.argv[1:] else list(SCENES)
    began = time.monotonic()
    with Lab() as lab:
        network = consumer_network(lab)
        say("lab", "routers, hosts and their networks", "built", time.monotonic() - began)
        play(Router.build(network, make_providers(network), settings(pace="default")), wanted)
    say("end", "all scenes", os.uname().release, time.monotonic() - began)
    return 0


if __name__ == "__main__":
    sys.exit(main())
