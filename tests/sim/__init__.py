"""Tests of whole realms on a simulated network with a virtual clock."""
