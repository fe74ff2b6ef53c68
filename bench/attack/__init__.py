"""The long attacks: each with the bound that it keeps, and the value that was measured."""
