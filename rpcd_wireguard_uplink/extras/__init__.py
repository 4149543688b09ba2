"""Optional parts, each loaded only where the configuration or the machine asks for it."""
