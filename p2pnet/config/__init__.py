"""The configuration of a role: declared once, read from a TOML file and the command line."""
