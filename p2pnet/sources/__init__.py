"""Sources of the addresses at which peers may reach a node."""
