"""The core of the Intermediate: control connections, registry, introductions, forwarding."""
