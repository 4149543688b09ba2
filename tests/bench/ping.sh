#!/bin/sh
# A watchdog as owners write it: a ping each second, and after three losses the default route steps
# back behind the other WAN's until a ping is answered. Arguments: device, gateway, metric, target.
device=$1 gateway=$2 metric=$3 target=$4 lost=0
worse=$((metric + 90))
move() {
	ip route replace default via "$gateway" dev "$device" metric "$2"
	ip route del default via "$gateway" dev "$device" metric "$1" 2>/dev/null
}
while :; do
	if ping -c 1 -W 1 -I "$device" "$target" >/dev/null 2>&1; then
		[ "$lost" -lt 3 ] || move "$worse" "$metric"
		lost=0
	else
		lost=$((lost + 1))
		[ "$lost" != 3 ] || move "$metric" "$worse"
	fi
	sleep 1
done
