"""What `p2pnet demo` shows: a whole realm on this machine, and a download through it."""
