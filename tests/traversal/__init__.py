"""Tests of p2pnet.traversal and of the direct paths that the cores make of it."""
