"""Figures of the structure of p2pnet: import circles, attributes, sizes, trips of a datagram."""
