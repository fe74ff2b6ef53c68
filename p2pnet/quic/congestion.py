"""The congestion controllers that a configuration may name. Imports nothing, so that it may."""

CONTROLLERS = ("bbr", "cubic", "reno")
DEFAULT_CONTROLLER = "bbr"  # takes no loss for a full queue, and leaves others their share
CONTROL_CONTROLLER = "reno"  # of control connections: a few messages, and many connections
