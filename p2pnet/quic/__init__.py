"""QUIC on aioquic, without sockets or clocks: the only package that imports aioquic."""
