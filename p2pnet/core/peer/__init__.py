"""The core of Agent and Connector: a demultiplexer, control links, sessions and their streams."""
