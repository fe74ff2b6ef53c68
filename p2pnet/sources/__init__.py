"""Where a node learns the addresses that peers may reach it at."""
