"""p2pnet: reach a private service behind NAT from anywhere."""

__version__ = "0.1.0"
