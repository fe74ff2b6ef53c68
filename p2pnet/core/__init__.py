"""The sans-IO cores of the three roles: bytes and time in, bytes and events out."""
