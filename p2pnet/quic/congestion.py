"""The congestion controllers that a configuration may name. Imports nothing, so that it may."""

CONTROLLERS = ("bbr", "cubic", "reno")
CONTROL_CONTROLLER = "reno"  # of control connections: a few messages, and many connections
