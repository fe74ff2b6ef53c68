"""The command `p2pnet`: certificates and a demonstration."""
