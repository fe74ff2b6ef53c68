"""Fuzzing of every decoder, and of whole nodes on the simulated network: ``make fuzz``."""
