"""Finding a direct way between two nodes: ICE (RFC 8445), without sockets or clocks."""
