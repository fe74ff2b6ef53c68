"""The congestion controllers that a configuration may name. Imports nothing, so that it may."""

CONTROLLERS = ("cubic", "reno", "bbr")
DEFAULT_CONTROLLER = "cubic"  # fair to others on clean paths; bbr is for paths that lose
