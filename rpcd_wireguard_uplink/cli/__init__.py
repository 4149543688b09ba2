"""`wgctl uplink`: the command line, its tables, and the doctor."""
