"""Attacks, each with the bound that holds against it."""
