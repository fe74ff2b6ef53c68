"""The `p2pnet` command."""
