"""Two checkouts side by side: what the newer one costs as a multiple of the older one."""
