"""What each method replies: one record a reply or a row in it, one line a member.

A member's meaning names its unit. docs/methods.md and the schemas that tests hold replies to are
made from these, and so are the tables of `wgctl`, for the members that have a `column`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..failover.selection import TIERS
from ..mesh.wire.message import listed
from ..mesh.wire.offer import Offer
from ..model import HANDSHAKE, PEER, PEER_KEY, ConsumerRow, HistoryEntry, TrustRow
from ..schema.record import Record, member
from ..schema.shapes import Tree
from .methods import LONGEST_HISTORY

STATES = ("primary", "suspect", "failed_over", "holding", "stranded", "disabled")
PATH_STATES = ("up", "suspect", "degraded", "down", "connecting", "unknown")
EVENTS_IN_STATUS = 10
OFFERS_IN_STATUS = 100

INTERFACE = "name of the tunnel's network interface"
WEIGHT: Tree = {
    "description": "1 to 100, the higher one is preferred",
    "minimum": 1,
    "maximum": 100,
}
ENDPOINT = 'where the peer listens, "host:port"; "" while it is not known'
ADDRESS = 'this router\'s IPv4 address in the tunnel, "" if none'
ADDRESS6 = 'this router\'s IPv6 address in the tunnel, "" if none'
SHARED_FATE = "whether it travels over the very WAN that it should replace"
USABLE = "whether traffic could be moved to it now"
REASON = 'why it is not usable; else ""'
NOTE = 'what the owner should know, as a sentence; else ""'
ACTIVE = "whether traffic uses it now"
PATH_STATE: Tree = {
    "description": "up; suspect: probes are being lost; degraded: alive, but too lossy or too "
    "slow; down; connecting: no handshake yet; unknown: not probed",
    "enum": list(PATH_STATES),
}
STATE: Tree = {
    "description": "primary: traffic uses the router's own WAN; suspect: it loses probes; "
    "failed_over: traffic uses an uplink; holding: the WAN is back and must stay so for the hold "
    "time; stranded: nothing is left; disabled: automatic failover is off",
    "enum": list(STATES),
}
ACTIVE_PATH = (
    'device or uplink interface that traffic leaves by; "" if none. While stranded: the one that '
    "traffic is led to although nothing answers there"
)
LATENCY: Tree = {"description": "round trip in ms; -1 while unknown", "minimum": -1}
LOSS: Tree = {"description": "lost probes in percent", "maximum": 100}
OR_GAP: Tree = {"type": "number", "minimum": -1}
FAMILY: Tree = {"description": "the address family", "enum": ["ipv4", "ipv6"]}
SENTENCE = "where traffic goes, as one sentence"
SUCCESS: Tree = {"description": "always true; an error has false", "const": True}
SWITCH: Tree = {"enum": [0, 1]}  # SecuBox's page compares with 1, and `true` is not 1 there


class Done(Record):
    success: bool = member(SUCCESS, default=True)
    message: str = member("what was done, as a sentence")


class DonePeer(Done):
    peer_id: str = member(PEER)


# --- uplinks


class OfferRow(Record, also=listed(Offer)):
    """An offer of a mesh peer: its listed members (mesh/wire/offer.py), and what we say of it."""

    peer_id: str  # one of the offer's
    trusted: bool = member("whether the owner trusts this peer")
    usable: bool = member("whether an uplink can be made from the offer now", column="USABLE")
    reason: str = member(REASON, column="USABLE", last=True, coded=True)
    endpoint: str = member(ENDPOINT, column="ENDPOINT")
    age_s: int = member("seconds since the offer was received", column="RECEIVED")
    carrier: str = member("how it came: mesh, mqtt, gossip, or bus for this router's own programs")
    configured: bool = member("whether there is an uplink to this peer")


class UplinkRow(Record):
    peer_id: str = member(PEER, column="PEER")
    interface: str = member(INTERFACE, column="INTERFACE")
    weight: int = member(WEIGHT, column="WEIGHT")
    endpoint: str = member(ENDPOINT, column="ENDPOINT")
    public_key: str = member(PEER_KEY)
    address: str = member(ADDRESS, column="ADDRESS")
    address6: str = member(ADDRESS6, column="ADDRESS")
    state: str = member(PATH_STATE, column="STATE")
    active: bool = member(ACTIVE, column="TRAFFIC")
    shared_fate: bool = member(SHARED_FATE)
    note: str = member(NOTE, coded=True)


class Uplinks(Record):
    offers: Sequence[OfferRow] = member("what mesh peers offer")
    uplinks: Sequence[UplinkRow] = member("the configured uplinks, best first")


class Added(DonePeer):
    peer_id: str = member(PEER, column="PEER")
    interface: str = member(INTERFACE, column="INTERFACE")
    public_key: str = member("this router's public key in this tunnel; the peer must know it")
    address: str = member(ADDRESS, column="ADDRESS")
    address6: str = member(ADDRESS6, column="ADDRESS")
    endpoint: str = member(ENDPOINT, column="ENDPOINT")
    weight: int = member(WEIGHT, column="WEIGHT")
    created: bool = member("false where the uplink existed and was changed")
    leased: bool = member("whether its addresses are a lease of the provider")
    note: str = member(NOTE, coded=True)


class Tested(Record):
    success: bool = member(
        SUCCESS, description="true: the test ran, whatever it found", default=True
    )
    peer_id: str = member(PEER)
    interface: str = member(INTERFACE)
    target: str = member("what was probed")
    reachable: bool = member("whether any probe was answered")
    sent: int = member("probes sent")
    received: int = member("probes answered")
    latency_ms: float = member("median round trip in ms; -1 without an answer", low=-1)
    loss_pct: float = member(LOSS)
    handshake_age_s: int = member(HANDSHAKE)
    exit_address: str = member('address that the internet sees; "" if it can\'t be told')
    error: str = member('why nothing was reachable, as a sentence; else ""', coded=True)


class Weighed(DonePeer):
    weight: int = member(WEIGHT)


class Switched(Done):
    auto_failover: int = member(SWITCH, description="1 if automatic failover is on now")


class Used(Done):
    """`uplink_use`"""

    path: str = member("a peer's id, wan or auto")
    left_s: float = member("seconds until traffic leaves as the service decides; 0 for now")


class Heard(Done):
    accepted: bool = member("false where it was old or changed nothing")
    peer_id: str = member(PEER)


# --- status


class WanHealth(Record):
    """Health of one of the router's own WANs."""

    path: str = member("name of the WAN", column="PATH")
    device: str = member("its network device", column="DEVICE")
    state: str = member(
        f"{PATH_STATE['description']}; captive: a portal wants a login first",
        enum=[*PATH_STATES, "captive"],
        column="STATE",
    )
    portal: str = member('where to log in, the portal\'s URL; "" if there is none')
    latency_ms: float = member(LATENCY, column="LATENCY")
    loss_pct: float = member(LOSS, column="LOSS")
    last_ok_s: float = member(
        "seconds since the last answer; -1 if never", low=-1, column="ANSWERED"
    )


class UplinkHealth(Record):
    """Health and use of a configured uplink."""

    peer_id: str = member(PEER, column="PATH")
    interface: str = member(INTERFACE, column="DEVICE")
    weight: int = member(WEIGHT)
    state: str = member(PATH_STATE, column="STATE")
    active: bool = member(ACTIVE)
    latency_ms: float = member(LATENCY, column="LATENCY")
    loss_pct: float = member(LOSS, column="LOSS")
    handshake_age_s: int = member(HANDSHAKE, column="HANDSHAKE")
    rx_bytes: int = member("bytes received through the tunnel")
    tx_bytes: int = member("bytes sent through the tunnel")
    today_bytes: int = member("bytes both ways today", column="TODAY")
    month_bytes: int = member("bytes both ways since the first of the month", column="THIS MONTH")
    cost: str = member("what using it costs; decides before the weight", enum=list(TIERS))
    quota_left_gb: float = member(
        "GB left this month, as the peer says; -1 if unknown", low=-1, column="QUOTA"
    )
    endpoint: str = member(ENDPOINT)
    probe_mb_a_day: float = member("what probes take at their present pace, both ways, MB a day")
    mtu: int = member("the tunnel's MTU in bytes; 0 while it is not there")
    underlay: str = member('device that the tunnel\'s outer packets leave by; "" if unknown')
    shared_fate: bool = member(SHARED_FATE)
    usable: bool = member(USABLE, column="USABLE")
    reason: str = member(REASON, column="USABLE", last=True, coded=True)
    note: str = member(NOTE, coded=True)


class AnchorRow(Record):
    """A `config anchor`: connections that always leave by one peer's tunnel."""

    name: str = member("name of its section", column="ANCHOR")
    peer_id: str = member(PEER, column="BY")
    interface: str = member(f'{INTERFACE}; "" without an uplink to the peer', column="BY")
    active: bool = member("whether new connections of it go there now", column="ACTIVE")
    reason: str = member('why they do not; else ""', column="WHY", last=True, coded=True)
    note: str = member(NOTE, coded=True)


class FamilyState(Record):
    state: str = member(STATE, description="as above, for this family")
    active_path: str = member(ACTIVE_PATH)
    blocked: bool = member(
        "true while stranded with fail_closed: nothing leaves, not by a dead WAN"
    )
    carrying: bool | None = member(
        "while an uplink is in use: true where flows of the LAN are answered through it, false "
        "where none is (problems says why), null where no recent flow shows it"
    )
    early_path: str = member(
        'the backup by which new connections leave while the WAN is in doubt; "" if it is not'
    )
    spread: list[str] = member("the uplinks over which new connections spread; none if they don't")


class Families(Record):
    ipv4: FamilyState = member("one address family")
    ipv6: FamilyState = member("one address family")


class PeerOffer(Record):
    """An offer as SecuBox's page reads it."""

    node_id: str = member(PEER)
    bandwidth: int = member("Mbit/s; 0 if the peer does not say")
    latency: float = member("ms; 0 if the peer does not say")
    public_key: str = member(PEER_KEY)
    endpoint: str = member(ENDPOINT)
    bandwidth_mbps: int = member("the same as bandwidth")
    latency_ms: float = member("the same as latency")


class ConsumerTraffic(Record):
    """A peer that uses this router's internet, in the status."""

    peer_id: str = member(PEER)
    address: str = member("its address in the tunnel")
    handshake_age_s: int = member(HANDSHAKE)
    rx_bytes: int = member("bytes that it sent")
    tx_bytes: int = member("bytes that it received")
    month_bytes: int = member("bytes both ways since the quota's reset day")


class Mwan3Interface(Record):
    name: str = member("netifd's name of it")
    status: str = member("mwan3's word for it: online, offline, unknown and others")
    tracking: str = member("active, paused, down, or disabled (it is not watched)")


class Mwan3Policy(Record):
    name: str = member("the policy's name")
    family: str = member(FAMILY)
    interfaces: Sequence[str] = member("where it sends traffic now; none: its last resort")


class Mwan3(Record):
    available: bool = member("whether mwan3 answers")
    interfaces: Sequence[Mwan3Interface] = member("its enabled interfaces")
    policies: Sequence[Mwan3Policy] = member("its policies")


class Coded(Record):
    """What a sentence says, for programs."""

    code: str = member('codes of the sentence, joined by slashes; "" where it has none')
    args: Sequence[str] = member("the values in it, in their order")


class ByHand(Record):
    """A path that `uplink_use` chose."""

    path: str = member("a peer's id, or wan")
    left_s: float = member("seconds until it ends by itself")


class Summary(Record):
    """The status for people."""

    now: str = member("whether the internet works, and by which way", coded=True)
    next: str = member('what happens if that way fails; "" where that does not matter', coded=True)
    advice: str = member("the one thing to do", coded=True)
    action: str = member(
        'what a button for it does; "" for none', enum=["", "settings", "check", "failover", "add"]
    )
    peer_id: str = member('the peer that the advice is to add; else ""')


UNSAID = Summary(now="", next="", advice="", action="", peer_id="")


class Status(Record):
    available: bool = member("always true: SecuBox's plugin says false where it can't do anything")
    version: str = member("the release of the service")
    api: int = member("rises when a member or a method is removed or changes its meaning", low=1)
    enabled: int = member(SWITCH, description="1 if the service does anything at all")
    auto_failover: int = member(SWITCH, description="1 if traffic is moved automatically")
    offering: int = member(SWITCH, description="1 if this router offers its internet to peers")
    consumers: Sequence[ConsumerTraffic] = member("peers that use this router's internet")
    state: str = member(STATE)
    active_path: str = member(ACTIVE_PATH)
    since_s: float = member("seconds in this state")
    cause: str = member("what led to this state, as a sentence", coded=True)
    release_s: float = member("seconds until failback; -1 while no WAN is back", low=-1)
    by_hand: ByHand | None = member("what the owner chose; absent if nothing", default=None)
    detection_bound_ms: int = member("ms after which a dead WAN is noticed at the latest")
    uplink_count: int = member("number of configured uplinks")
    active_count: int = member("number of configured uplinks that are not disabled")
    primary: WanHealth = member("health of the WAN that is backed up")
    families: Families = member("the state of each address family")
    wans: Sequence[WanHealth] = member("the router's own WANs")
    uplinks: Sequence[UplinkHealth] = member("the configured uplinks, best first")
    anchors: Sequence[AnchorRow] = member("the anchors of the configuration, in its order")
    peer_offers: Sequence[PeerOffer] = member(
        "newest offers of peers with internet, for SecuBox", most=OFFERS_IN_STATUS
    )
    events: Sequence[HistoryEntry] = member("the last changes, newest first", most=EVENTS_IN_STATUS)
    problems: Sequence[str] = member("what the owner should mend")
    problem_codes: Sequence[Coded] = member("the code of each of problems")
    summary: Summary = member("the status in plain words")
    mwan3: Mwan3 | None = member("mwan3's own view; absent where it is not installed", default=None)
    mwan3_available: bool | None = member(
        "as in mwan3, for SecuBox; absent like mwan3", default=None
    )
    mwan3_status: str | None = member("each interface's status; absent like mwan3", default=None)


class Text(Record):
    code: str = member("of a sentence, as in its _code")
    text: str = member("the sentence in English; %s is an argument or the next code's text")


class Texts(Record):
    """`uplink_texts`"""

    texts: Sequence[Text] = member("one for each code")


class PathPulse(Record):
    """The numbers of one path now."""

    path: str = member("the network device of the path")
    state: str = member("as in uplink_status", enum=[*PATH_STATES, "captive"])
    latency_ms: float = member(LATENCY)
    loss_pct: float = member(LOSS)
    rx_kbps: int = member("kbit/s received by the device since the last call")
    tx_kbps: int = member("kbit/s sent")


class Pulse(Record):
    stamp: int = member("differs whenever other replies differ by more than numbers")
    since_s: float = member("seconds in this state")
    release_s: float = member("seconds until failback; -1 while no WAN is back", low=-1)
    left_s: float = member("seconds until the path chosen by hand is given up; 0 if none is")
    rollback_s: float = member(
        "seconds for which LuCI may still roll settings back, and changes are refused; 0 if none "
        "wait to be confirmed"
    )
    paths: Sequence[PathPulse] = member("the WANs, then the uplinks, best first")


class PathSeries(Record):
    """The points of one path, the newest last; -1 where nothing was known or nothing answered."""

    path: str = member("the network device of the path")
    latency_ms: Sequence[float] = member("mean round trip in ms", items=OR_GAP)
    loss_pct: Sequence[float] = member("lost probes in percent", items=OR_GAP)
    moved_bytes: Sequence[int] = member("bytes both ways", items=OR_GAP)


class SeriesReply(Record):
    """`uplink_series`"""

    span: str = member("hour, day or month", enum=["hour", "day", "month"])
    step_s: int = member("seconds that a point stands for")
    paths: Sequence[PathSeries] = member("every path of the span")


class History(Record):
    events: Sequence[HistoryEntry] = member("newest first", most=LONGEST_HISTORY)


# --- explanations


class CandidateRow(Record):
    """A backup path in the order of preference."""

    place: int = member("1 for the first in the order of preference", low=1)
    path: str = member("its network device")
    name: str = member("the peer's id, or the WAN's name", column="PATH")
    kind: str = member("wan: a WAN of the router's own; uplink", enum=["wan", "uplink"])
    usable: bool = member(USABLE)
    reason: str = member(REASON, coded=True)
    active: bool = member(ACTIVE)
    health: str = member(
        "what the probes say", enum=["unknown", "up", "suspect", "down"], column="HEALTH"
    )
    shared_fate: bool = member(SHARED_FATE)
    metric: int = member("of a WAN: lower comes first; 0 for an uplink", column="METRIC")
    weight: int = member("of an uplink: higher is first; 0 for a WAN", high=100, column="WEIGHT")
    tier: str = member("what using it costs", enum=list(TIERS), column="COST")
    price_per_gb: float = member("what a GB costs, as the mesh counts; 0: free", column="COST")
    quota_left_gb: float = member("GB left of its quota; -1 without", low=-1, column="COST")
    latency_ms: float = member(LATENCY, column="LATENCY")
    loss_pct: float = member(LOSS, column="LOSS")
    advertised_mbps: int = member("Mbit/s as offered or granted; 0 if not said", column="MBIT/S")
    measured_mbps: int = member("Mbit/s that it gave at its limit; 0 if unknown", column="MEASURED")
    expected_mbps: int = member("Mbit/s that the score is made with", column="EXPECTED")
    score_ms: float = member(
        "ms that a page would take through it; less is better", column="PAGE LOAD"
    )
    last_answer_s: float = member(
        "seconds since the last answer; -1 if never", low=-1, column="ANSWERED"
    )
    sentence: str = member("why it is at this place, or can't be used", coded=True)


class ExplainedFamily(Record):
    family: str = member(FAMILY)
    state: str = member(STATE)
    active_path: str = member(ACTIVE_PATH)
    primary: str = member('device of the WAN that is backed up; "" if none')
    cause: str = member('why it is in this state; else ""', coded=True)
    sentence: str = member(SENTENCE, coded=True)
    note: str = member('what the owner should know of the path in use; else ""', coded=True)
    candidates: Sequence[CandidateRow] = member("all backups in the order of preference")


class OtherPeer(Record):
    peer_id: str = member(PEER)
    configured: bool = member("whether there is an uplink to it")
    reason: str = member("why it is no candidate", coded=True)


class Explained(Record):
    families: Sequence[ExplainedFamily] = member("one for each address family")
    others: Sequence[OtherPeer] = member("peers that are no candidates")


class SimulatedFamily(Record):
    family: str = member(FAMILY)
    state: str = member(STATE)
    active_path: str = member(ACTIVE_PATH)
    cause: str = member('why; else ""', coded=True)
    moves: bool = member("whether traffic would take another path than now")
    next_path: str = member('what would follow if that failed too; "" if nothing')
    sentence: str = member(SENTENCE, coded=True)


class Simulated(Record):
    fail: Sequence[str] = member("the devices that are assumed dead")
    families: Sequence[SimulatedFamily] = member("one for each address family")


class FindingRow(Record):
    """One thing that the preflight (`wgctl uplink doctor`) found."""

    check: str = member("what was looked at")
    level: str = member(
        "wrong keeps the service from its work; a note is worth knowing", enum=["wrong", "note"]
    )
    what: str = member("what is wrong, as a sentence", coded=True)
    mend: str = member('a command that mends it; "" where none is known')


class Checked(Record):
    findings: Sequence[FindingRow] = member("what is wrong first; nothing where all is well")


class HookRun(Record):
    name: str = member("the file's name")
    error: str = member('why it failed; "" where it did not', coded=True)


class Notified(Done):
    hooks: Sequence[HookRun] = member("every hook that was run, in order")


class DrillStep(Record):
    step: str = member(
        "tunnel, ipv4, ipv6, dns, mtu, exit (the address that the internet sees) or traffic",
        column="STEP",
    )
    ok: bool = member("whether it went well", column="OK")
    told: str = member("what was found", column="FOUND", last=True, coded=True)
    took_ms: int = member("ms that it took", column="TOOK")


class DrillRow(Record):
    peer_id: str = member(PEER)
    interface: str = member(INTERFACE)
    ok: bool = member("whether all went well")
    note: str = member('what did not go well; else ""', coded=True)
    steps: Sequence[DrillStep] = member("what was tried")


class Drilled(Done):
    at: str = member("when it ended, ISO 8601 in UTC")
    took_s: float = member("seconds that it took")
    drills: Sequence[DrillRow] = member("one for each uplink")


# --- offering and trust


class OwnOffer(Record):
    peer_id: str = member(PEER)
    available: bool = member("whether the offer is valid now")
    reason: str = member('why it is not; else ""', coded=True)
    bandwidth_mbps: int = member("Mbit/s as advertised; 0 if not said")
    latency_ms: float = member("ms as advertised; -1 if not known", low=-1)
    wan_type: str = member("kind of WAN")
    metered: bool = member("whether the WAN is paid by volume")
    quota_gb: float = member("GB a month for all consumers; 0 for no limit")
    quota_left_gb: float = member("GB left of it; -1 without a quota", low=-1)
    limit_mbps: int = member("Mbit/s for each consumer; 0 for no limit")
    max_consumers: int = member("how many peers are served at once")
    consumers: int = member("how many peers have a lease")
    endpoint: str = member(ENDPOINT)
    public_key: str = member("this router's public key as a provider")


class Offered(Done):
    offer: OwnOffer = member("what this router offers")
    note: str = member(NOTE, coded=True)


class Denial(Record):
    """How often peers were refused for one reason."""

    code: str = member("why")
    count: int = member("how often")


class Consumers(Record):
    offering: int = member(SWITCH, description="1 if this router offers its internet to peers")
    offer: OwnOffer = member("what this router offers")
    consumers: Sequence[ConsumerRow] = member("peers with a lease")
    refused: Sequence[Denial] = member("what was refused of peers, by code")


class TrustList(Record):
    node_id: str = member("this router's id in the mesh")
    peers: Sequence[TrustRow] = member("mesh peers")


class Trusted(DonePeer):
    peer: TrustRow = member("a mesh peer")


# --- SecuBox's older names


class OlderUplink(Record):
    """An uplink as SecuBox's page knows it."""

    interface: str = member(INTERFACE)
    node_id: str = member(PEER)
    peer_pubkey: str = member(PEER_KEY)
    endpoint: str = member(ENDPOINT)
    priority: int = member("1 to 100, the lower one is preferred", low=1, high=100)
    weight: int = member(WEIGHT)
    status: str = member(
        "active: ready or in use; testing: not known yet; down", enum=["active", "testing", "down"]
    )
    enabled: bool = member("whether its section is enabled")
    state: str = member("up or down", enum=["up", "down"])
    connectivity: str = member("ok, failed or unknown", enum=["ok", "failed", "unknown"])


class OlderUplinks(Record):
    uplinks: Sequence[OlderUplink] = member("the configured uplinks, best first")


class OlderDone(Done):
    interface: str = member(INTERFACE)


class OlderAdded(OlderDone):
    peer_id: str = member(PEER)


class OlderTested(Tested):
    success: bool = member("the same as reachable")
    result: str = member("OK or FAILED", enum=["OK", "FAILED"])
