"""Twisted around the sans-IO cores: sockets, the driver, and streams as transports."""
