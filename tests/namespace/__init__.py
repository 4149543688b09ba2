"""Tests in namespaces: real packets, real tunnels, real faults."""
