"""Places to try p2pnet out: real processes on this machine, and a simulated network."""
