"""The core of Agent and Connector.

- node: what both share, a demultiplexer; agent and connector: what is theirs alone
- finder: how an Agent finds a session for the name of a service
- sessions: finds the session of a datagram, and does what its paths ask for
- session, ends: streams over the connection of one session; stream: one of them, for the host
- link, backoff, liveness: the connection to an Intermediate, kept up
- profiles, options: how connections are set up, and what a configuration decides
"""
