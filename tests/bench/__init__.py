"""Benchmarks run: with tiny sizes, and nothing said about the figures."""
