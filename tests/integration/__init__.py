"""Whole deployments: the roles as `twistd` processes, with real programs on either side."""
