"""The machine below: netifd's sections on OpenWrt, `ip` and `wg` elsewhere."""
