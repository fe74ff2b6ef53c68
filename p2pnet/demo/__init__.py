"""The demonstration of ``p2pnet demo``: a realm on this machine, and a download through it."""
