"""Probes of one path: ICMP echo, DNS, TCP, and the search for the tunnel's MTU."""
