"""Tests of p2pnet.net: streams and flows as Twisted knows them, sockets, the driver."""
