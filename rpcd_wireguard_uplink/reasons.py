"""Reasons: sentences that say why, with codes for programs and for pages in other languages.

A reason is made where the fact is known, of a template: at %s stands an argument, at ... another
sentence. What is in {} is for the command line alone, since pages have buttons, and what is in []
for pages alone, before what stays English. Where the other sentence is a reason too, the code is
both, joined by a slash, and the arguments are those of both: "it is down: no answer to 3 probes in
4.2 s" is down/no_answer with 3 and 4.2. The pages get the templates by `uplink_texts` and translate
them (po/).
"""

from __future__ import annotations

import errno
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
    "watched_by": "%s answers %s but not every ping: it is watched by %s",
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
    "answers_otherwise": "It answers %s, not every ping.",
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
    "reported": "[The service reports: “]...[”]",
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
    "EPERM": "Operation not permitted",
    "ENOENT": "No such file or directory",
    "EIO": "Input/output error",
    "EACCES": "Permission denied",
    "EBUSY": "Device or resource busy",
    "EEXIST": "File exists",
    "ENODEV": "No such device",
    "EINVAL": "Invalid argument",
    "EMFILE": "Too many open files",
    "ENOMEM": "Cannot allocate memory",
    "ENOSPC": "No space left on device",
    "EROFS": "Read-only file system",
    "ENOBUFS": "No buffer space available",
    "EADDRINUSE": "Address already in use",
    "EADDRNOTAVAIL": "Cannot assign requested address",
    "ENETDOWN": "Network is down",
    "ENETUNREACH": "Network is unreachable",
    "EHOSTUNREACH": "No route to host",
    "ECONNREFUSED": "Connection refused",
    "ECONNRESET": "Connection reset by peer",
    "ETIMEDOUT": "Connection timed out",
    "EOPNOTSUPP": "Operation not supported",
    "system_says": "[“]...[”]",
    "program_said": "%s failed: [“]...[”]",
    "program_failed": "%s failed: ...",
    "exit_status": "exit status %s",
    "program_prints": "%s printed something, as it never does: is it the program that is meant?",
    "program_odd": "what %s printed can't be understood (%s): is it the program that is meant?",
    "no_wg_dump": "wg show did not print a dump as wg(8) describes it",
    "program_floods": "%s printed more than %s bytes: ended",
    "program_slow": "%s did not finish within %s s",
    "not_started": "can't run %s: ...; is it installed?",
    "not_run": "can't run %s: ...",
    "netlink_dump": "netlink dump %s: ...",
    "netlink_request": "netlink request %s: ...",
    "kernel_silent": "the kernel gave no answer",
    "netlink_silent": "the kernel did not answer a netlink request",
    "no_netlink": "no netlink socket: ...",
    "netlink_refused": "netlink request refused: ...",
    "netlink_lost": "netlink answer lost: ...",
    "not_made": "can't make %s: ...",
    "not_set": "can't set %s: ...",
    "addresses_not_set": "can't set the addresses of %s: ...",
    "marks_stay": "%s connections keep marks of ours: ...",
    "connections_stay": "connections could not be deleted: ...",
    "rule_refused": "the kernel refused the rule %s: ...",
    "route_not_copied": "the route %s was not copied: ...",
    "route_refused": "the kernel refused a route of table %s: ...",
    "no_watchdog": "the watchdog can't be started: ...",
    "filter_unset": "rp_filter can't be set: ...",
    "no_probes": "can't probe through %s: ...",
    "probes_need_root": "probes need raw sockets: run as root",
    "unwritten": "can't write %s: ...",
    "unread": "%s can't be read: ...",
    "no_path": "it is no path",
    "file_ignored": "%s is ignored: ...",
    "file_readable": "%s is ignored: `chmod 600 %s` first",
    "file_not_roots": "%s is ignored: %s is not root's, but user %s's",
    "file_writable": "%s is ignored: other users may write to %s",
    "too_long": "it is longer than %s bytes",
    "no_json": "it is not JSON",
    "no_json_object": "it is not a JSON object",
    "is_folder": "it is a folder, not a file",
    "is_fifo": "it is a FIFO, not a file",
    "is_socket": "it is a socket, not a file",
    "is_device": "it is a device, not a file",
    "no_key_in_file": "%s holds no WireGuard key: put its backup there, or remove it for a new "
    "one, which the peer must admit",
    "no_seed": "%s holds no signing key: put its backup there, or remove it for a new one, which "
    "every peer must accept",
    "signing_unusable": "the signing key can't be used: ...",
    "signing_unkept": "can't keep the signing key in %s: ...",
    "keys_not_aside": "keys of removed uplinks can't be put aside: ...",
    "addresses_unwritten": "%s can't be written (...): after a boot without a resolver the "
    "providers' addresses would not be known",
    "usage_unread": "the record of traffic can't be read: counting begins anew",
    "usage_anew": "...: counting traffic begins anew",
    "config_lost": "%s is lost or cut off (it has no section of type %s), so nothing is changed "
    "for it: put it back{, or begin anew with `wgctl uplink set enabled 1`}",
    "network_lost": "%s is lost or cut off (it has no interface but ours), so nothing is changed "
    "for it: put it back",
    "config_unread": "[“]...[”]; the last good configuration stays in force",
    "config_unkept": "the last good configuration can't be kept for the next start: ...",
    "config_locked": "%s is being changed by another program; nothing was written, try again",
    "config_changed": "%s was changed by another program meanwhile; nothing was written, try again",
    "config_no_file": "%s is not a file; put a file there",
    "config_unwritten": "%s: ...; the old content is kept",
    "config_missing": "%s doesn't exist; create it",
    "setting_must": "%s is '%s': it must be ...",
    "setting_is_not": "%s is not ...",
    "setting_missing": "%s is missing{: it %s}",
    "option_unknown": "%s is not an option of this service",
    "option_retired": "%s has no effect any more{: %s}",
    "section_unknown": "%s: sections of type %s are unknown",
    "name_it": "%s: name it: config %s '%s'",
    "uplink_misnamed": "%s: an uplink's section is named like its interface: %s and up to %s "
    "letters, digits or underscores, and none of %s; it is not used",
    "mqtt_named": "%s names mqtt: set enabled and host in a section config %s '%s'",
    "pace_too_slow": "%s is %s s, but pace '%s' needs %s s{: %s s to the next probe, %s s "
    "without an answer, %s s to switch}; raise failover_timeout or choose pace 'fast'",
    "neither_used": "%s and %s have the same %s; neither is used: remove one",
    "one_unused": "%s and %s have the same %s; %s is not used: remove one",
    "anchor_empty": "%s has nothing to know connections by: give source, destination, protocol, "
    "port or dscp; it is not used",
    "anchor_ports": "%s has ports, which only tcp and udp have, and another protocol; it is not "
    "used",
    "anchor_families": "%s has sources of one address family and destinations of the other; it "
    "is not used",
    "unknown_devices": "list %s names %s, which this router does not have (there are %s)",
    "no_devices": "list %s names %s, which this router does not have (there is none)",
    "form_whole": "a whole number from %s to %s",
    "form_decimal": "a number from 0 to %s",
    "form_choice": "one of %s",
    "form_flag": "1 or 0",
    "form_text": "text",
    "form_no_list": "an option, not a list",
    "form_id": "1 to 64 letters, digits, dots, underscores or hyphens, and begin with a letter "
    "or digit",
    "form_address": "an IPv4 or IPv6 address",
    "form_network": "an address or a network, as in 192.168.1.7 or 2001:db8::/32",
    "form_pool": "a network up to /%s inside %s",
    "host_bits": "the network %s, or the address %s alone",
    "pool_bits": "the network %s{, without the host's part of %s}",
    "form_ports": "a port or a range of ports, as in 5060 or 10000-20000",
    "form_dscp": "a code point: a number from 0 to 63, or a name as EF, AF41, CS5",
    "form_host": "a host name or an address of another machine",
    "form_endpoint": "HOST:PORT, an IPv6 address in brackets, of another machine",
    "form_broker": "a host name or an address",
    "form_tunnel_address": "a host's address, with a prefix length or without",
    "form_consumer_address": "one consumer's: /32 or /128",
    "form_mesh_peer": "a peer's id and its address in the mesh, as in 'nodeA 10.9.0.1'",
    "form_path": "a file's whole path",
    "form_device": "a WireGuard device that is none of this service's",
    "form_wg_key": "a WireGuard key (32 bytes in base64)",
    "form_signing_key": "an Ed25519 key (32 bytes in base64)",
    "form_page": "the URL of a page that answers 204, and begin with http://",
    "form_fingerprint": "a fingerprint of master-link's",
    "form_topic": "words of a topic with / between them",
    "form_wan_type": "at most 32 plain characters",
    "form_no_password": "an option of this file: LuCI may read it; put the password into a file "
    "of its own that only root can read, and name that in password_file",
    "must": "%s must ...",
    "must_be": "%s must be ...",
    "must_id": "be 1 to 64 letters, digits, dots, underscores or hyphens, and begin with a "
    "letter or digit",
    "must_key": "be a WireGuard public key: 44 characters of base64",
    "must_whole": "be a whole number from %s to %s",
    "must_span": "be hour, day or month",
    "must_entries": "have from 1 to 64 entries",
    "must_fingerprint": "be 1 to 128 letters, digits, dots, colons or hyphens",
    "must_interface": "be 1 to 15 letters, digits, dots, underscores or hyphens",
    "must_flag": "be 1 or 0",
    "must_range": "%s must be from %s to %s",
    "must_choice": "%s must be one of %s",
    "longer": "%s is longer than %s characters",
    "breaks_rule": "%s breaks the rule %s %s",
    "no_argument": "%s is not an argument of %s{; it takes %s}",
    "argument_missing": "%s is missing{: give %s}",
    "option_unusable": "%s can't be used: ...",
    "a_string": "a string",
    "a_whole_number": "a whole number",
    "a_number": "a number",
    "a_flag": "0 or 1",
    "a_table": "a table",
    "a_list": "a list",
    "endpoint_brackets": "endpoint must be %s for an IPv6 address",
    "endpoint_port": "endpoint has no valid port: give a number from 1 to 65535",
    "no_ip_address": "%s is not an IPv4 or IPv6 address",
    "prefix_length": "%s has no prefix length from 1 to %s behind the /",
    "weak_key": "no tunnel can be made with it; give the peer's own",
    "no_host": "%s is neither a host name nor an IP address",
    "no_ipv4": "%s is no IPv4 address: that has four numbers from 0 to 255",
    "is_localhost": "%s is the loopback of whoever looks it up",
    "names_device": "%s names a device; give the address without %%",
    "is_loopback": "%s is a loopback address",
    "is_multicast": "%s is a multicast address",
    "no_machines": "%s is not an address that a machine can have",
    "is_unspecified": "%s is the unspecified address",
    "link_local": "%s is link-local; give an address that can be routed",
    "ours_not_peers": "%s is this router's own address; give the peer's",
    "endpoint_is_name": "endpoint %s is a name; it must be resolved first",
    "address_is_none": "address is not an IPv4 or IPv6 address",
    "address_no_tunnels": "address %s can't be a tunnel's: take one of a private range",
    "no_name_free": "no interface name is free for %s: remove an uplink first",
    "refused": "%s says no: ...",
    "refuses": "%s says no: [“]...[”]",
    "peer_silent": "The peer at %s did not answer within %s s.",
    "no_peer_there": "What answers at %s is no peer that speaks as we do.",
    "peer_unreached": "The peer at %s can't be reached: ....",
    "bad_address": "that is no address",
    "not_listening": "Peers get no answer on %s: .... It is tried again.",
    "peer_unseen": "%s was not seen on the mesh",
    "lease_is_others": "the lease is of %s, not of %s",
    "of_mesh_peer": "of mesh peer %s (%s)",
    "of_other_uplink": "that the uplink to %s has (%s)",
    "of_this_router": "of this router's own (%s)",
    "of_a_route": "that a route leads to (%s)",
    "not_asked_yet": "it was not asked for its id yet",
    "several_say": "several mesh peers say that they are %s: set option node_id in the section "
    "uplink of each, such as %s at %s",
    "gossip_refused": "mirrornet did not take the message: ...",
    "name_used": "another router speaks in this router's name",
    "mqtt_package": "MQTT needs its own package: install rpcd-wireguard-uplink-mqtt",
    "no_paho": "MQTT needs a library that is not here: install %s",
    "login_unusable": "user or password can't be used: ...",
    "empty_file": "%s is empty or not there",
    "bad_certificate": "its certificate is not valid ([“]...[”])",
    "password_elsewhere": "password_file %s is not used: only a file below %s is, and none of "
    "%s: put the password into %s/mqtt-password",
    "password_of_other": "password_file is not used: the password was given for %s port %s, and "
    "the broker's settings are others now; if that is your doing, remove %s",
    "broker_lost": "the connection to the MQTT broker at %s was lost",
    "broker_silent": "the MQTT broker at %s does not answer",
    "broker_refuses_user": "the MQTT broker at %s refuses the user or the password: see user and "
    "password_file",
    "broker_refuses": "the MQTT broker at %s refuses the connection (reason %s)",
    "broker_unusable": "the MQTT broker at %s can't be used: ...",
    "no_mqtt5": "it must speak MQTT 5",
    "mwan3_metrics": "mwan3: a member has metric %s, and the uplinks need metrics behind it, but "
    "mwan3 takes none above %s: lower the members' metrics",
    "mwan3_full": "mwan3: %s interfaces and %s of the uplinks are more than the %s that mmx_mask "
    "has room for: remove an uplink",
    "mwan3_timeout": "wireguard-uplink.uplink.failover_timeout is %s s, but mwan3's tracker of a "
    "tunnel needs %s, which is more than the %s s of its slowest WAN and failover_timeout: set "
    "failover_timeout to %s or more, or `option policy '%s'`",
    "mwan3_offline": "mwan3 holds %s to be offline",
    "no_netifd": "there is no %s without netifd",
    "taken_down": "it was taken down: `ifup %s` brings it back",
    "netifd_fails": "netifd does not bring it up ([“]...[”]): are wireguard-tools and "
    "kmod-wireguard installed? `logread -e netifd` tells more",
    "section_not_ours": "%s: a section %s that is not ours is there: rename or remove it",
    "no_wan_zone": "firewall: no zone has a WAN: add the WAN's interface to one",
    "fw4_refuses": "fw4 refuses /etc/config/firewall: `fw4 check` tells why",
    "fw4_reload": "`%s reload` failed: `%s restart` tells why, or mends it",
    "device_not_ours": "a device %s that is not ours is there: rename or remove it",
    "lease_gone": "no consumer has that key: its lease is gone",
    "flows_go_on": "running connections of consumers go on, conntrack does not delete them: "
    "[“]...[”]",
    "no_ifb": "rates can't be limited: the kernel has no ifb (OpenWrt: install kmod-ifb)",
    "no_tc": "rates can't be limited (OpenWrt: install tc-tiny, kmod-sched-core): ...",
    "no_pool_free": "no network is free for consumers: set option pool4",
    "ruleset_too_large": "the packet filter's ruleset is too large to be looked through",
    "uncounted": "whether traffic comes back is not known: ...",
    "undone": "...; the change was undone",
    "undoing_failed": "undoing %s failed: ...; tried again soon",
    "finishing_failed": "finishing %s failed: ...; tried again soon",
    "unguarded": "providers can reach this router and its LAN: their tunnels can't be filtered "
    "(...)",
    "tunnel_ahead": "the default route of %s (metric %s) does not stand behind that of %s "
    "(metric %s), so %s may leave by the tunnel while %s is well: give the interface on %s a "
    "lower metric",
    "size_no_pass": "packets of %s bytes do not pass",
    "travels_over": "it travels over %s",
    "no_wan_left": "no WAN is left that it could travel over",
    "portal_no_url": "captive_check is not a URL",
    "portal_not_http": "captive_check must be a URL that begins with http://",
    "exit_seen": "the internet sees %s, says %s",
    "drilled": "%s used it for %s s: ...",
    "nothing_counted": "nothing was counted",
    "mb_moved": "%s MB came and %s MB went by it",
    "test_asked_for": "a test that the owner asked for",
    "hooks_unread": "No hook is run: can't read %s: ....",
    "hook_unread": "%s is not run: ....",
    "hook_not_roots": "%s is not run: it is not root's; `chown root %s` if you know it.",
    "hook_writable": "%s is not run: others may write to it; `chmod go-w %s` if you know it.",
    "carrying_again": "flows of the LAN are answered again, or their cause is mended",
    "internal": "something failed inside the service; its log names the place",
    "deny_not_offering": "it does not offer its internet now",
    "deny_wan_down": "its own WAN does not work now",
    "deny_not_trusted": "it does not trust this router yet: ask its owner to trust it there",
    "deny_unbound": "its owner has to confirm this router there first",
    "deny_other_peer": "it knows this router under another name or key: ask its owner to confirm "
    "it anew",
    "deny_full": "it serves as many peers as it may: ask its owner for room",
    "deny_quota_spent": "its quota of this month is used up",
    "deny_key_in_use": "another peer has this router's key of the tunnel: try again",
    "deny_address_conflict": "its addresses clash with this router's networks: its owner can set "
    "another pool4 and pool6",
    "deny_no_address": "it has no address left to give: its owner can set a larger pool4",
    "deny_no_lease": "it knows no lease of this router any more: remove the backup and add it "
    "again",
    "deny_too_many": "it was asked too often: try again in some minutes",
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


def reported(sentence: str) -> str:
    """The sentence as it is, or as a quotation where it has no code."""
    return sentence if code_of(sentence)[0] else because("reported", sentence)


def of_errno(number: int, words: str) -> str:
    """Why the system refused: of an errno that owners meet translated, else the system's words."""
    name = errno.errorcode.get(number, "")
    return because(name) if name in TEMPLATES else because("system_says", words)


def of_system(error: Exception) -> str:
    """Why the system refused, from an OSError."""
    number = getattr(error, "errno", None) or 0
    return of_errno(number, getattr(error, "strerror", None) or str(error))
