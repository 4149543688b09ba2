"""A small bus and an `ubus` command for machines without ubusd."""
