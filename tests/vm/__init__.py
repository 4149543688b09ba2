"""Debian's own kernel under qemu, and the laboratory inside it: `make vm`."""
