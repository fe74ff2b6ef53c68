"""Comparison of two checkouts: both run side by side and take short batches by turns."""
