#!/bin/sh
# What mirrornet runs for a message about uplinks: hands it in on the bus, where it is judged.
#
# Usage: gossip-handler.sh handle [ACTION] DATA ORIGIN
# DATA is the message as JSON, at most 16384 bytes; ORIGIN the node that it is said to come from, an
# id or a DID. Both come from other machines: they travel as text inside one JSON argument, and an
# ORIGIN is always told, since without one a message counts as this router's own. Returns 0 where
# the message was taken.

LC_ALL=C
export LC_ALL

if [ "$1" != handle ] || [ $# -lt 3 ] || [ $# -gt 4 ]; then
	echo "usage: gossip-handler.sh handle [ACTION] DATA ORIGIN" >&2
	exit 2
fi
[ $# = 3 ] || shift
if [ "$(printf %s "$2" | wc -c)" -gt 16384 ]; then
	echo "the message is longer than 16384 bytes" >&2
	exit 1
fi

# JSON has control characters nowhere but between its words; a backslash or quote is doubled up.
data="$(printf %s "$2" | tr '\001-\037\177' ' ' | sed 's/[\\"]/\\&/g')"
# What an id can't hold becomes a dot; of did:plc:NAME the name is left.
origin="$(printf %s "${3##*:}" | tr -c 'A-Za-z0-9._-' '.' | cut -c 1-64)"
case "$origin" in [A-Za-z0-9]*) ;; *) origin=unknown ;; esac

ubus -t 5 -S call luci.wireguard-dashboard uplink_gossip \
	"{\"message\":\"$data\",\"origin\":\"$origin\"}" >/dev/null
