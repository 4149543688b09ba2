"""Breaks the service on purpose: `make chaos`; test_chaos.py has the short forms."""
