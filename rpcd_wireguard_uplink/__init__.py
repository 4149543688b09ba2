"""A WireGuard mesh peer as backup uplink: the service behind `luci.wireguard-dashboard`."""

__version__ = "0.1.0"
