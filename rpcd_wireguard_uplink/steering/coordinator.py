"""Failover's one way to the kernel: what decisions, settings and uplinks ask of the controller.

Translates each decision into diversions and blocks in the same turn of the event loop in which it
falls, and runs the controller's tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ..config.settings import Settings
from ..failover.machine import Adopted, Decision
from ..model import Family, Uplink
from ..platform.network_reader import NetworkReader
from ..tasks import TaskSet
from ..warnings import Warnings
from .controller import SteeringController
from .wishes import blocked_of, diversion_of


class SteeringCoordinator:
    """Implements failover's `Steering` by a controller. `rebuild` is called where nftables lost its
    table: ensure() is to be called then.
    """

    def __init__(
        self,
        network: NetworkReader,
        controller: SteeringController,
        warnings: Warnings,
        rebuild: Callable[[], None],
    ) -> None:
        self._network = network
        self._controller = controller
        self._rebuild = rebuild
        self._tasks = TaskSet(warnings)
        self._is_fail_closed = False

    async def start(self) -> Mapping[Family, Adopted]:
        """Begin; what an earlier run left in force is taken over."""
        found = await self._controller.start(self._rebuild)
        supervise = self._tasks.supervise
        supervise("switching", self._controller.follow)
        supervise("following rules and routes", self._controller.follow_kernel)
        supervise("checking resolvers", self._controller.check_resolvers)
        supervise("keeping the diversion alive", self._controller.keep_alive)
        return {f: Adopted(each.route.device, each.dead) for f, each in found.items()}

    async def stop(self) -> None:
        """End; what is in force lapses by itself unless a new run takes it over."""
        self._controller.stop()
        await self._tasks.close()

    def use(self, settings: Settings) -> None:
        """Steer by these settings from now on."""
        self._is_fail_closed = settings.fail_closed
        self._controller.resolvers = settings.resolvers
        self._controller.drain_s = settings.sticky_s

    async def ensure(self, uplinks: Sequence[Uplink]) -> None:
        """Have the lasting part cover these uplinks and the WANs as they are; none: remove it."""
        await self._controller.ensure(uplinks)

    async def follow_underlays(self) -> None:
        """See what each tunnel travels over, and have its MTU fit."""
        await self._controller.follow_underlays()

    def carry_out(self, decisions: Mapping[Family, Decision]) -> None:
        """Have the kernel follow what was decided."""
        network, controller = self._network.state, self._controller
        states = {family: decision.state for family, decision in decisions.items()}
        blocked: dict[Family, Sequence[str]] = {}
        for family, decision in decisions.items():
            controller.dead[family] = decision.dead
            sharing = network.sharing.get(family, ())
            diversion = diversion_of(
                decision.state, network, family, decision.primary, decision.dead, sharing
            )
            if decision.change is not None:
                controller.want(family, diversion, decision.change, decision.detection_ms)
            controller.renew(family, diversion)
            blocked[family] = blocked_of(
                states,
                network,
                family,
                decision.dead,
                controller.portals,
                fail_closed=self._is_fail_closed,
            )
        controller.block(blocked)

    def carries(self, device: str, family: Family) -> bool:
        """Whether traffic is led there, in a drill too, or connections finish on it."""
        return self._controller.carries(device, family)
