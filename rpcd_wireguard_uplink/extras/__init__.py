"""Optional parts, loaded by option."""
