#!/bin/sh
# The functions of SecuBox's uplink.sh for scripts that source it, each a call on the bus. What they
# print and return is as it was there; errors are sentences on stderr. Sourcing it does nothing.
#
# The service itself does what some of them did by hand (mwan3, addresses, interface names): those
# succeed and do nothing, so that a script that still calls them goes on working.

# Usage: _uplink_call METHOD [ARGUMENTS AS JSON]; prints the reply.
_uplink_call() {
	local reply status=0
	reply="$(ubus -S call luci.wireguard-dashboard "$1" "${2:-{\}}" 2>/dev/null)" || status=$?
	if [ "$status" != 0 ]; then
		jsonfilter -s "${reply:-{\}}" -e '@.error' >&2 ||
			echo "$1 failed with status $status: is wireguard-uplink running?" >&2
		return 1
	fi
	printf '%s\n' "$reply"
}

# Usage: _uplink_json NAME VALUE [NAME VALUE ...]; prints a table of texts, without empty ones.
_uplink_json() {
	local table=
	while [ $# -gt 1 ]; do
		case "$2" in *[!]A-Za-z0-9+/=.:_[-]*)
			echo "$1 holds a character that it can't have" >&2
			return 1
			;;
		esac
		[ -z "$2" ] || table="$table${table:+,}\"$1\":\"$2\""
		shift 2
	done
	printf '{%s}' "$table"
}

_uplink_get() {
	local reply
	reply="$(_uplink_call "$1" "$2")" && jsonfilter -s "$reply" -e "$3"
}

p2p_available() {
	ubus -S list luci.wireguard-dashboard >/dev/null 2>&1
}

get_local_node_id() {
	cat /var/run/secubox-p2p/node.id 2>/dev/null || _uplink_get uplink_trust '{}' '@.node_id'
}

# Usage: advertise_uplink_offer [BANDWIDTH_MBPS] [LATENCY_MS]
advertise_uplink_offer() {
	local arguments
	arguments="$(_uplink_json bandwidth "${1:-100}" latency "${2:-10}")" &&
		_uplink_get offer_uplink "$arguments" '@.message'
}

withdraw_uplink_offer() {
	_uplink_get withdraw_uplink '{}' '@.message'
}

# Prints a JSON array of {node_id, wg_pubkey, wg_endpoint, bandwidth_mbps, latency_ms}.
get_peer_uplink_offers() {
	_uplink_offers '@.peer_offers'
}

# Usage: get_peer_uplink_offer NODE_ID; prints the offer, fails where there is none.
get_peer_uplink_offer() {
	local arguments
	arguments="$(_uplink_json node_id "${1:?node id required}")" &&
		_uplink_offers "@.peer_offers[@.node_id='$1']" | grep .
}

# The names inside an offer are those of the mesh's messages.
_uplink_offers() {
	_uplink_get uplink_status '{}' "$1" |
		sed 's/"public_key":/"wg_pubkey":/g; s/"endpoint":/"wg_endpoint":/g'
}

# Usage: create_uplink_interface PEER_PUBLIC_KEY ENDPOINT; prints the interface's name.
create_uplink_interface() {
	local arguments
	arguments="$(_uplink_json peer_pubkey "$1" endpoint "$2")" &&
		_uplink_get add_uplink "$arguments" '@.interface'
}

# Usage: remove_uplink_interface INTERFACE
remove_uplink_interface() {
	local arguments
	arguments="$(_uplink_json interface "$1")" &&
		_uplink_call remove_uplink "$arguments" >/dev/null
}

# Usage: test_uplink_connectivity INTERFACE [TARGET]; prints OK or FAIL and returns so.
test_uplink_connectivity() {
	case "$(measure_uplink_latency "$@")" in
	'' | -*) echo FAIL && return 1 ;;
	*) echo OK ;;
	esac
}

# Usage: measure_uplink_latency INTERFACE [TARGET]; prints ms, -1 without an answer.
measure_uplink_latency() {
	local arguments
	arguments="$(_uplink_json interface "$1" target "${2:-8.8.8.8}")" &&
		_uplink_get test_uplink "$arguments" '@.latency_ms'
}

# Prints the interfaces of the configured uplinks, one a line.
get_active_uplinks() {
	_uplink_get uplinks '{}' '@.uplinks[*].interface'
}

get_uplink_stats() {
	local status offering=false
	status="$(_uplink_call uplink_status)" || return 1
	[ "$(jsonfilter -s "$status" -e '@.offering')" != 1 ] || offering=true
	printf '{"total":%s,"active":%s,"offering":%s,"peer_offers":%s}\n' \
		"$(jsonfilter -s "$status" -e '@.uplink_count')" \
		"$(jsonfilter -s "$status" -e '@.active_count')" "$offering" "$(get_peer_uplink_offers)"
}

# For scripts that make tunnels of their own. Usage: get_next_wg_interface [PREFIX]; a free name.
get_next_wg_interface() {
	local number=0
	while [ "$number" -lt 100 ]; do
		[ -e "/sys/class/net/${1:-wgup}$number" ] || {
			echo "${1:-wgup}$number"
			return 0
		}
		number=$((number + 1))
	done
	return 1
}

# Prints an address of 172.31.0.0/24 that no device here has.
allocate_uplink_ip() {
	local number=1 used
	used="$(ip -4 addr show)"
	while [ "$number" -lt 255 ]; do
		case "$used" in *"inet 172.31.0.$number/"*) ;;
		*)
			echo "172.31.0.$number/24"
			return 0
			;;
		esac
		number=$((number + 1))
	done
	return 1
}

get_mwan3_status() {
	mwan3 interfaces 2>/dev/null || echo "mwan3 not available"
}

add_to_mwan3() { :; }
remove_from_mwan3() { :; }
release_uplink_ip() { :; }
refresh_uplink_state() { :; }
init_uplink() { :; }
