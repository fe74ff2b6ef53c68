"""Twisted services around the cores, one for each role, for programs that run a node."""
