"""Tests of p2pnet.quic.bbr."""
