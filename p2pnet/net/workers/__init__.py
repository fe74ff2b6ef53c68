"""Relay workers: processes that forward frames on the Intermediate's port."""
