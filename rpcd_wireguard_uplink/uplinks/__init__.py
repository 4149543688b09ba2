"""Using others: adding, changing and removing uplinks, and the leases behind them."""
