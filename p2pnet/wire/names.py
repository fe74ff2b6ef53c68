"""How realms, nodes and services may be named."""

NAME = r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?"
"""A regular expression for a whole name: fit for one URI segment and for a file name."""
