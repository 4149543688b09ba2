"""Reasons: sentences that say why, with codes for programs and for pages in other languages.

A reason is made where the fact is known, of a template: at %s stands an argument, at ... another
sentence. What is in {} is for the command line alone, since pages have buttons, and what is in []
for pages alone, before what stays English. Where the other sentence is a reason too, the code is
both, joined by a slash, and the arguments are those of both: "it is down: no answer to 3 probes in
4.2 s" is down/no_answer with 3 and 4.2. The pages get the templates by `uplink_texts` and translate
them (po/).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Self

TEMPLATES = {
    "not_trusted": "%s is not trusted{: ...}",
    "not_approved": "%s is not trusted: master-link's record of it (%s) is %s; approve it there "
    "first",
    "unapproved": "%s is not trusted: master-link has not approved it; approve it there first",
    "not_confirmed": "%s is approved, but its mesh key is not confirmed{: ...}",
    "no_address": "the tunnel has no address of this family",
    "down": "it is down: ...",
    "never_answered": "nothing has answered through it yet",
    "needs_dead_wan": "it travels over the WAN that failed and does not answer now",
    "not_watched": "it is not watched yet",
    "service_disabled": "the service is disabled in its configuration",
    "uplink_disabled": "the uplink is disabled in its section",
    "failover_off": "automatic failover is off",
    "disabled": "disabled in the configuration",
    "no_answer": "no answer to %s probes in %s s",
    "probes_lost": "%s of %s probes lost",
    "targets_silent": "%s of %s targets do not answer: ...",
    "not_yet": "..., no answer yet",
    "nothing_else": "...; no other path answers",
    "nothing_answers": "neither %s nor any backup answers",
    "answers_for": "%s has answered for %s s",
    "was_doubted": "%s was silent for a moment: new connections left by a backup for %s s",
    "was_doubted_often": "%s was silent for a moment %s times in %s minutes: new connections left "
    "by a backup for %s s in all",
    "weight_set": "its weight is %s now",
    "own_wan_answers": "%s, a WAN of the router's own, has answered for %s s",
    "cheaper_answers": "%s costs less, and has answered for %s s",
    "answers_again": "%s answers again",
    "answers_instead": "%s answers, %s does not",
    "lost_again": "the WAN was lost again: ...",
    "gone": "%s is gone",
    "device_gone": "its device is gone",
    "route_gone": "its default route is gone",
    "no_wan_answers": "no WAN answers",
    "no_route": "there is no default route",
    "needs_wan": "This uplink travels over %s and can't help when that WAN is dead.",
    "same_wan": "%s leaves by the same WAN as this router, and is tried last.",
    "rollback_pending": "settings that were applied in LuCI wait to be confirmed, and %s may be "
    "put back: confirm them, or try again in two minutes",
    "carrier_lost": "the cable or the connection is gone",
    "chosen": "chosen by hand",
    "asked_for": "asked for",
    "few_uplinks": "too few backups were ready",
    "well": "all went well",
    "not_added": "it is not a backup yet{: `wgctl uplink add %s` makes one}",
    "declined": "you removed it{: `wgctl uplink add %s` brings it back}",
    "no_wan": "%s has no WAN here.",
    "nowhere": "%s goes nowhere: ....",
    "leaves": "%s leaves by %s; %s would be next.",
    "leaves_last": "%s leaves by %s; nothing else could take over now.",
    "would_go": "%s would go to %s; %s would be next.",
    "would_go_last": "%s would go to %s; nothing would be left behind it.",
    "assumed": "assumed to fail",
    "first": "%s comes first.",
    "after": "%s comes after %s: ....",
    "unusable": "%s can't be used: ....",
    "own_wan": "a WAN of the router's own comes before any peer's",
    "needs_that_wan": "it needs the very WAN that it should replace",
    "metric": "its metric is %s, not %s",
    "metered": "it is metered, and the other is free",
    "cost_unknown": "nobody has said what it costs",
    "nearly_spent": "its quota is nearly spent",
    "weight": "its weight is %s, not %s",
    "price": "a GB costs %s there, not %s",
    "slower": "a page would take %s ms through it, %s ms through the other",
    "kept": "the other is in use and stays until another is a fifth better",
    "alike": "both are alike, and the order of names decides",
    "peer_offers_none": "the peer says that its internet is not available",
    "peer_on_uplink": "the peer has no WAN of its own now: it uses %s's internet",
    "peer_quota_spent": "the peer's quota of this month is used up",
    "stopping": "this router's service stops",
    "not_configured": "it is not configured",
    "wan_dead": "the WAN is dead",
    "wan_unseen": "the WAN was not seen to work yet",
    "wan_must_hold": "the WAN came back and must stay so for the hold time",
    "quota_spent": "this month's quota is used up",
    "no_own_address": "no address of this router is known",
    "wan_works": "the WAN works",
    "not_forwarding": "this router does not forward %s: LAN hosts and consumers reach nothing",
    "wan_silent": "this router's own WAN does not answer: an offer would help nobody{; `wgctl "
    "uplink status` tells more}",
    "not_offered": "nothing is offered: ...",
    "no_mesh": "No mesh is known: bring its WireGuard device up, give each peer an address of "
    "its own (/32 or /128) in allowed_ips, or name the device by list mesh.",
    "nobody_trusted": "No mesh peer is trusted yet{: `wgctl uplink trust` lists them}.",
    "not_the_confirmed": "%s is not the peer that was confirmed: ...",
    "other_identity": "it was confirmed with identity %s and now has %s",
    "other_mesh_key": "it was confirmed with mesh key %s and now comes with %s",
    "mapped_elsewhere": "list peer puts it at %s, and a peer with mesh key %s goes by its id",
    "approval_gone": "master-link's approval of %s (fingerprint %s) is gone: approve it there "
    "again{, or wgctl uplink trust accept %s}",
    "approval_is": "master-link's approval of %s (fingerprint %s) is %s: approve it there again",
    "approved_unseen": "%s is approved, but no mesh peer goes by its id yet: wait for it{, or "
    "add `list peer '%s ADDRESS'` to /etc/config/wireguard-uplink}",
    "approvals_fit": "%s is approved, but not confirmed, and %s approvals fit{: wgctl uplink "
    "trust accept %s --fingerprint %s, or one of the others}",
    "says_other_name": "the peer at %s says that it is %s, not %s{: wgctl uplink trust accept "
    "%s, or correct list peer}",
    "nobody_there": "no mesh peer has %s for its own, where list peer puts %s: correct the "
    "entry, or give that peer a /32 or /128 in its allowed_ips",
    "not_seen": "%s was not seen on the mesh yet: bring its mesh tunnel up{, or add `list peer "
    "'%s ADDRESS'` to /etc/config/wireguard-uplink}",
    "several_named": "%s mesh peers go by the id %s (%s){: say which one by list peer '%s "
    "ADDRESS'}",
    "key_is_others": "the mesh key of %s is confirmed as %s's{: wgctl uplink trust revoke %s "
    "first}",
    "record_is": "master-link's record %s is %s: approve it there first",
    "several_approvals": "several approvals of master-link fit %s{: name one, --fingerprint %s}",
    "never_trusted": "%s was not trusted by this router{: see wgctl uplink trust}",
    "give_address": "give it its own mesh address there, such as 10.9.0.2/32",
    "no_allowed_ips": "peer %s of %s has no allowed_ips: ...",
    "own_allowed_ip": "peer %s of %s has this router's own address %s in its allowed_ips: ...",
    "shared_allowed_ip": "peer %s of %s shares %s in its allowed_ips with another peer: ...",
    "any_allowed_ip": "peer %s of %s may send from every address, as a VPN's server, which "
    "proves nobody: if it is a router of the mesh, ...",
    "only_networks": "peer %s of %s has only networks in its allowed_ips (%s), which prove "
    "nobody: ...",
    "never_came_up": "it has not come up, and %s has no endpoint of it to call",
    "no_handshake_at": "no handshake with it at %s: it is off, or keys or endpoint are wrong",
    "handshake_is_old": "no handshake with it for %s min: it is off, or can't be reached",
    "silent_at": "it does not answer at %s: does its firewall accept that from the mesh?",
    "other_program_at": "what answers at %s is not rpcd-wireguard-uplink: is the port another "
    "program's?",
    "not_known_there": "it does not recognize this router: its rpcd-wireguard-uplink needs this "
    "router's own address as /32 or /128 in allowed_ips",
    "nothing_listens": "nothing listens at %s: is rpcd-wireguard-uplink running there, enabled, "
    "and the port open?",
    "not_askable": "it can't be asked: ...",
    "mesh_unread": "the mesh can't be read: ...",
    "same_id": "%s is the id of this router and of other mesh peers: set option node_id in "
    "section uplink here, such as %s, or there",
    "says_our_id": "mesh peer %s says that it is %s, as this router is: set option node_id in "
    "its section uplink, such as %s",
    "other_peer": "the mesh peer at %s is not %s",
    "lost_prefix": "LAN hosts lost their IPv6 prefix with %s: they fall back to IPv4.",
    "busy": "This router is busy: it probes every %s s in place of %s, and traffic leaves a WAN "
    "that falls silent within %s s.",
    "watched_by": "%s answers %s but not ping: it is watched by %s",
    "proves_nothing": "%s: %s, which proves nothing beyond it",
    "section_disabled": "it is disabled in its section",
    "uplink_missing": "there is no uplink to %s{: `wgctl uplink list` shows them}",
    "no_anchor_uplink": "there is no uplink to %s",
    "uplink_unused": "the uplink to %s is not used",
    "vpn_has_default": "%s, a VPN, has the default route",
    "nothing_through": "nothing is answered through %s",
    "anchor_one_way": "%s is reached by %s alone, and what is anchored ends with it: give "
    "another address of the peer{, `list other_endpoint` in section %s}, or a second WAN",
    "anchor_unused": "anchor %s: ...: such connections go by the usual way",
    "anchor_note": "anchor %s: ...",
    "answers_otherwise": "It answers %s, not ping.",
    "early_by": "New connections leave by %s while the WAN is in doubt.",
    "loses": "loses %s %% of its probes",
    "takes": "takes %s ms",
    "it": "it ...",
    "worse": "%s ...",
    "no_better": "It ..., and nothing clearly better answers.",
    "answers_but": "%s answers again, but ...",
    "maybe_again": "%s may be alive again",
    "admit_us": "no handshake yet: did the provider admit our public key, and is its endpoint "
    "right?",
    "up_but_silent": "the tunnel is up, but nothing answers through it: does the provider have "
    "internet?",
    "no_such_name": "the name %s has no address that can be found now",
    "no_way_out": "probes can't leave by this tunnel: there is no such device or route",
    "path_unusable": "%s can't be used now: ...",
    "own_id": "%s is this router itself",
    "peer_not_available": "%s says that its internet is not available now; try again later",
    "changed_meanwhile": "the uplink to %s was changed by somebody else meanwhile: try again",
    "no_offer": "%s does not offer its internet{: `wgctl uplink offer` there does, or give "
    "--endpoint and --public-key here}",
    "lease_unreachable": "%s can't be asked for a lease over the mesh (%s): try again, or give "
    "its endpoint, public_key and an address that it has admitted",
    "no_endpoint": "%s named no endpoint that this router could use: ...",
    "own_address": "%s is this router's own address",
    "behind_uplink": "%s is behind an uplink",
    "no_route_to": "no route leads to %s",
    "host_of_lan": "%s is in this router's network %s, where the mesh does not reach it",
    "device_name": "nftables can't be given the name of device %s, so the device is not used as a "
    "WAN: if it is one, rename it (`ip link set dev OLD name NEW`)",
    "too_many_places": "%s changes the addresses of the lease again and again: the present ones "
    "stay for some hours",
    "key_is_ours": "%s gave this router's own key as its own",
    "lease_inside": "%s gave an address inside this router's network %s: its owner can set "
    "another pool4 and pool6",
    "lease_clash": "%s gave an address %s: its owner can set another pool4 and pool6",
    "lease_not_renewed": "the lease of %s was not renewed: ...",
    "other_place": "the provider gave other addresses",
    "tunnel_not_made": "the tunnel can't be made: ...",
    "route_lost": "the default route by %s was gone after the change, which was undone: try again "
    "when that WAN is back",
    "interrupted_undone": "adding it was interrupted, and was undone",
    "interrupted_done": "adding it was interrupted, and is finished now",
    "found_configured": "found in the configuration",
    "none_made": "no uplink to %s could be made: ...",
    "peer_untrusted": "its peer is not trusted any more",
    "given_back": "given back",
    "trust_lost": "not trusted any more",
    "not_renewed": "it was not renewed",
    "leases_not_kept": "the leases can't be kept: ...",
    "probes_answered": "%s of %s probes were answered",
    "probes_answered_in": "%s of %s probes were answered, %s ms",
    "tunnel_gone": "%s is not there",
    "no_handshake_with": "no handshake with %s yet",
    "shook_hands": "the last handshake was %s s ago",
    "size_passes": "packets of %s bytes pass",
    "size_stops": "packets of %s bytes don't pass",
    "no_resolver": "no resolver is known for it",
    "resolver_answers": "%s answers",
    "resolvers_silent": "no answer, from %s",
    "no_name_found": "an answer, but no name was found, from %s",
    "no_family": "it answers in no family that has a WAN",
    "untried": "not tried, since no probe was answered",
    "drill_on": "a drill: all traffic is led through %s for %s s",
    "drill_over": "the drill of %s is over",
    "wan_failed_meanwhile": "a WAN failed meanwhile: this is no drill any more",
    "drill_none": "there is no uplink to rehearse{: `wgctl uplink list` shows what there is}",
    "away_already": "traffic is on an uplink already: try a drill with all of it again after the "
    "failback",
    "portal": "%s is held by a captive portal: open %s to log in",
    "portal_page_wrong": "%s does not answer 204 through %s either",
    "hooks_dropped": "%s events did not reach the hooks since the service began.",
    "hook_failed": "failed (exit status %s): ...",
    "lan_dropped": "%s flows of the LAN towards %s are dropped on this router: ...",
    "lan_silent": "%s flows of the LAN leave by %s and nothing comes back: ...",
    "lan_kept": "%s answers from %s are dropped on this router: ...",
    "rule_unnamed": "a rule drops them that can't be named{; look for drop and reject in the "
    "forward chains that `nft list ruleset` shows}",
    "filter_strict": "rp_filter is strict and drops the answers{: `sysctl -w "
    "net.ipv4.conf.%s.rp_filter=2` lets them in}",
    "untranslated": "nothing translates the LAN's addresses to the tunnel's: the nat chain of "
    "table inet wgup is gone; a restart of the service makes it again",
    "unexplained": "nothing on this router explains it; does the peer forward and translate what "
    "comes out of the tunnel?",
    "lan_no_route": "%s flows of the LAN have no route, although %s is up{: `ip route get %s "
    "from %s iif %s` finds none}",
    "drops_sent": "%s drops what %s sends into %s (%s)",
    "drops_answers": "%s drops the answers that %s gets from %s (%s)",
    "share_moves": "%s does not answer (%s): its share goes by %s",
    "vpn_gone": "the default route by %s, a VPN, went away during the outage (%s): new traffic "
    "is refused until it or the WAN is back, so that nothing leaves in clear",
    "only_tunnel": "the only default route (%s) is by %s, a tunnel, which is not taken for a "
    "WAN: if it is a way to the internet of its own, name it, with the WANs, in `list wan '%s'` "
    "of /etc/config/wireguard-uplink",
    "repairs": "our routing rules, routes or nftables table were removed %s times within %s min "
    "and put back: find out whether %s removes them, and have it leave foreign ones alone "
    "(systemd-networkd: ManageForeignRoutingPolicyRules=no and ManageForeignRoutes=no)",
    "missing": "%s is missing: ....",
    "ip_for": "traffic would stay diverted if the service died",
    "nft_for": "traffic can't be switched",
    "wg_for": "tunnels can't be made",
    "conntrack_for": "a spent quota would end no running connection",
    "no_wireguard": "The kernel has no WireGuard, and there is no wireguard-go.",
    "wireguard_go": "The kernel has no WireGuard: wireguard-go is used, which is slower.",
    "nft_refuses": "nft refuses the table that moves traffic: ....",
    "no_raw_sockets": "Probes need raw sockets, which this user may not open: be root.",
    "clock_old": "The clock is older than this software: peers may refuse the handshakes.",
    "filter_is_strict": "net.ipv4.conf.all.rp_filter is 1: answers to probes of idle tunnels are "
    "dropped.",
    "name_is_others": "luci.wireguard-dashboard on the bus is another program's: the service "
    "takes it over when it starts.",
    "no_bus": "There is no bus; failover works without one, wgctl does not.",
    "not_running": "The service is not running. Nothing was sent over the WANs: whether they "
    "have internet is not known.",
    "key_exposed": "%s can be read by others than root.",
    "read_only": "%s is read-only: no uplink can be made.",
    "mwan3_globals": "mwan3 has no section globals: it neither starts nor stops cleanly.",
    "no_metric": "network.%s has no metric: mwan3 can't use that WAN.",
    "same_metric": "network.%s and network.%s have the same metric %s.",
    "no_zone": "The WAN %s (%s) is in no firewall zone.",
    "no_zone_forwarding": "No forwarding leads to the firewall zone %s of %s.",
    "hardware_offload": "Hardware flow offloading is on: whether running connections move is "
    "untested.",
    "nothing_to_watch": "No WAN has a default route now: there is nothing to watch.",
    "wan_probes_lost": "No probe through the WAN %s is answered.",
    "drill_no_usable": "no uplink answers now{: `wgctl uplink why` tells more}",
    "drill_running": "a drill is under way: wait for its end",
    "switched_off": "the uplink to %s is switched off{: `wgctl uplink why` tells more}",
    "nothing_sent": "mirrornet sent nothing: has secubox-p2p found a peer yet?",
    "no_record": "master-link holds no record %s: see the fingerprints on its page",
    "fingerprint_is_others": "fingerprint %s is confirmed as %s's{: wgctl uplink trust revoke %s "
    "first}",
    "no_fingerprint_used": "option trust is uci, so no fingerprint is used: leave it out",
    "no_such_path": "%s is no path of this router; known are %s",
    "bad_span": "for must be from 1s to 24h, not %s",
    "setting": "[A setting can not be used: ]...",
    "reported": "[The service reports: ]...",
    "not_carrying": "%s gives no answers",
    "carrying": "%s gives answers again",
    "uplink_added": "Backup %s added",
    "uplink_changed": "Backup %s changed",
    "uplink_removed": "Backup %s removed",
    "trusted": "%s is trusted",
    "untrusted": "%s is not trusted any more",
    "offering": "Internet offered to peers",
    "withdrawn": "Offer withdrawn",
    "lease_granted": "%s may use your internet",
    "lease_ended": "%s does not use your internet any more",
    "drill": "Rehearsal with %s",
    "drill_passed": "Rehearsal with %s passed",
    "drill_failed": "Rehearsal with %s failed",
    "doubted": "New connections left by %s early",
    "now_chosen": "The internet works, through %s: you chose it.",
    "now_works": "The internet works, through %s.",
    "now_suspect": "%s is losing packets; traffic still uses it.",
    "now_failed_over": "%s is down. The internet works, through %s.",
    "now_holding": "%s is back. Traffic returns to it soon, from %s.",
    "now_stranded": "There is no internet: no WAN and no backup answers.",
    "now_off": "Automatic failover is off: traffic stays on %s even when it fails.",
    "now_disabled": "The service is disabled: nothing happens when %s fails.",
    "next_none": "If %s fails, there is no internet: no backup is ready.",
    "next_moves": "If %s fails, traffic moves to %s within %s s.",
    "do_enable": "Enable the service in the settings.",
    "do_log_in": "%s wants a login: open %s",
    "do_check": "Look at modem and cables, then check this router.",
    "do_turn_on": "Turn automatic failover on.",
    "do_mend": "Have %s mended: look at its modem and cables.",
    "do_nothing": "Nothing to do.",
    "not_ready": "No backup is ready: ....",
    "do_add": "%s offers its internet: add it as backup.",
    "do_ask": "No backup is ready, and no peer offers its internet: ask the owner of another "
    "router of the mesh to offer it.",
    "of": "%s: ...",
}


_FOR_COMMANDS, _FOR_PAGES = re.compile(r"\{([^}]*)\}"), re.compile(r"\[([^]]*)\]")
_TOLD = {c: _FOR_PAGES.sub("", _FOR_COMMANDS.sub(r"\1", t)) for c, t in TEMPLATES.items()}


def page_texts() -> dict[str, str]:
    """By code, what pages show; %s stands for another sentence too."""
    texts = ((c, _FOR_PAGES.sub(r"\1", _FOR_COMMANDS.sub("", t))) for c, t in TEMPLATES.items())
    return {code: text.replace("...", "%s") for code, text in texts}


class Reason(str):
    """A sentence with its code ('' for none) and what it is filled with; str() keeps them."""

    __slots__ = ("arguments", "code")
    code: str
    arguments: tuple[str, ...]

    def __new__(cls, text: str, code: str = "", arguments: tuple[str, ...] = ()) -> Self:
        reason = super().__new__(cls, text)
        reason.code, reason.arguments = code, arguments
        return reason

    def __str__(self) -> Self:
        return self


def because(code: str, *given: object) -> Reason:
    """The sentence of that code, filled with what is given; another sentence comes last."""
    template, words = _TOLD[code], tuple(map(str, given))
    text = template.replace("...", "%s") % words
    if "..." not in template:
        return Reason(text, code, words)
    inner, arguments = code_of(words[-1])
    if inner:
        return Reason(text, f"{code}/{inner}", (*words[:-1], *arguments))
    return Reason(text) if code == "of" else Reason(text, code, words)


def told_with(reason: str, more: str) -> Reason:
    """The reason with more behind it, which is for the command line alone."""
    return Reason(reason + more, *code_of(reason))


def joined(separator: str, sentences: Iterable[str]) -> str:
    """All sentences as one text, with the code of the first."""
    told = tuple(sentences)
    return Reason(separator.join(told), *code_of(told[0])) if told else ""


def code_of(sentence: str) -> tuple[str, tuple[str, ...]]:
    """The code and the arguments of a sentence; an empty code and none where it is no reason."""
    if isinstance(sentence, Reason):
        return sentence.code, sentence.arguments
    return "", ()
