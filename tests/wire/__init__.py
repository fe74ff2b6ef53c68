"""Tests of the wire layer: bytes to frozen values and back."""
