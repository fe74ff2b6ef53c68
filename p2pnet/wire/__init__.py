"""Bytes to frozen values and back: total functions that raise nothing but DecodeError."""
