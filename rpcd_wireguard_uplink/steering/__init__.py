"""Moves traffic between WANs and tunnels: the plan, the controller, what came of it."""
