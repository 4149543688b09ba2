"""The laboratory: routers, lines and a pretend internet made of network namespaces on one machine.

Plain library code without a test framework: tests and the demonstration share it. It knows how to
build and break networks, and nothing of what the product decides in them.
"""
