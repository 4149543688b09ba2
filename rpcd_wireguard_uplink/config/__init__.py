"""The configuration file: its options, the settings that they give, and its store."""
