"""The three roles as Twisted services, and how `twistd` and `twist` start them."""
