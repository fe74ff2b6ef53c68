"""The packet size that every layer may count on."""

BASE = 1200
"""Bytes of UDP payload that every path carries (RFC 9000 section 14; BASE_PLPMTU of RFC 8899)."""
