"""What outlives a restart: the state file in memory, the ledger of bytes on the flash."""
