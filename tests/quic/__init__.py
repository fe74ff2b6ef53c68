"""Tests of QUIC on aioquic: real connections in memory, on virtual time."""
