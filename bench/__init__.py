"""Benchmarks: each module is a program (``python -m bench.udp``), ``python -m bench`` runs them."""
