# Ends a diversion when the service that made it falls silent. Arguments: the FIFO of its heartbeat,
# the file of rp_filter values to give back, the protocol number of the diversion's rules.
# It starts armed. Lines that arrive: "armed" (a diversion is in force: another is due within 4 s), "calm", "end".
fifo=$1 saved=$2 protocol=$3
for group in /sys/fs/cgroup/systemd /sys/fs/cgroup; do
	[ -w "$group/cgroup.procs" ] && echo $$ >"$group/cgroup.procs" 2>/dev/null
done
trap '' HUP INT TERM
exec 3<>"$fifo" || exit 1
armed=1
give_back() {
	ip -4 rule flush protocol "$protocol" 2>/dev/null
	ip -6 rule flush protocol "$protocol" 2>/dev/null
	[ -r "$saved" ] || return 0
	while read -r device value; do
		echo "$value" >"/proc/sys/net/ipv4/conf/$device/rp_filter" 2>/dev/null
	done <"$saved"
	rm -f "$saved"
}
while :; do
	if [ -n "$armed" ]; then
		if read -r -t 4 word <&3; then :; else
			give_back
			armed=
			continue
		fi
	else
		read -r word <&3 || exit 0
	fi
	case $word in
	armed) armed=1 ;;
	calm) armed= ;;
	end) exit 0 ;;
	esac
done
