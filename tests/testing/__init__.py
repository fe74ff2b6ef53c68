"""Tests of what users of p2pnet test their programs with."""
