"""The provider side: our own offer, leases, and what the kernel needs for consumers."""
