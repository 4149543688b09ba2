"""What the service asks of the operating system: files, commands, netlink, connections."""
