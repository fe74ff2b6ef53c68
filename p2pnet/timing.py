"""The tolerance of all timers in the pure layers, whose times are seconds of the caller's clock."""

TOLERANCE = 1e-6
"""Seconds by which a timer may fire early and still be due: float sums carry rounding errors."""
