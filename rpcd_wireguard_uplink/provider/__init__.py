"""Serving others: the offer, leases, and the provider's side of the kernel."""
