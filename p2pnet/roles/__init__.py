"""The three roles as services of `twistd` and `twist`, and the plugins that make them."""
