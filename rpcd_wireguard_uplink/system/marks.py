"""The marks of packets and connections, and the nftables table, that are ours or that we know."""

TABLE = "wgup"
OUTER_MARK = 0x51  # WireGuard's own packets of our tunnels
PROBE_MARK = 0x52  # sockets of ours that are bound to a path
MWAN3_MASK = 0x3F00  # mwan3's mmx_mask
SLOT_MASK = 0x3F000000  # of connection marks, and of packets that a connection's mark steers
INBOUND = 0x40000000  # of connection marks: it came in by that WAN
FOREIGN_MASK = 0xFFFFFFFF ^ MWAN3_MASK ^ SLOT_MASK  # marks in these bits are other programs'
