"""Moves traffic between the WANs and the tunnels: the plan, the controller, what came of it."""
