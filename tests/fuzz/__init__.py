"""Damaged input for every parser of what others write: `make fuzz`; test_fuzz.py is short."""
