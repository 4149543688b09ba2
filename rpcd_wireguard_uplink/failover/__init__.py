"""The failover decision: detector, selection, state machine, and the monitor that feeds them."""
