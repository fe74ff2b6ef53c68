"""Twisted services around the cores, by role: what a program runs to be a node."""
