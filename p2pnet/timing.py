"""What the pure layers share about time; all times are seconds of the caller's clock."""

TOLERANCE = 1e-6
"""Seconds by which a timer may fire early and still counts as due: sums of floats are rounded."""
