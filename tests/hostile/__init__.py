"""Attacks on p2pnet, each with the bound that it keeps."""
