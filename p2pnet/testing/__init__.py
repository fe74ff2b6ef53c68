"""A simulated network with a virtual clock and NATs, a realm of nodes on it, and real processes."""
