# Ends a diversion when the service that made it falls silent. Arguments: the FIFO of its heartbeat,
# the file of rp_filter values to give back, the seconds of silence that end it, the protocol
# numbers of its rules and routes. Lines that arrive: "armed" (a diversion is in force: another is
# due within those seconds), "end".
fifo=$1 saved=$2 silence=$3
shift 3
for group in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
	[ -w "$group/cgroup.procs" ] && echo $$ >"$group/cgroup.procs" 2>/dev/null
done
trap '' HUP INT TERM
exec 3<>"$fifo" || exit 1
while read -r -t "$silence" word <&3; do
	[ "$word" = end ] && exit 0
done
for protocol in "$@"; do
	for family in -4 -6; do
		ip $family rule flush protocol "$protocol" 2>/dev/null
	done
done
nft flush chain inet wgup anchored 2>/dev/null
if [ -r "$saved" ]; then
	while read -r device value; do
		filter=/proc/sys/net/ipv4/conf/$device/rp_filter
		read -r now 2>/dev/null <"$filter" && [ "$now" = 2 ] && echo "$value" >"$filter"
	done <"$saved"
	rm -f "$saved"
fi
for protocol in "$@"; do
	for family in -4 -6; do
		ip $family route flush table all protocol "$protocol" 2>/dev/null
	done
done
