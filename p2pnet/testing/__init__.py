"""A simulated network with virtual clock and NATs, a realm of nodes on it, and real processes."""
