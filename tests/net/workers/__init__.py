"""Tests of the relay workers."""
