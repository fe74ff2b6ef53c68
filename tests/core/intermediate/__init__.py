"""Tests of the Intermediate's core."""
