"""The core of the Intermediate: connected nodes, registry, introductions, forwarding."""
