"""Tests of p2pnet; run them with `python -m twisted.trial tests`."""
