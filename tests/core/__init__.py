"""Tests of p2pnet.core: the sans-IO cores and their parts."""
