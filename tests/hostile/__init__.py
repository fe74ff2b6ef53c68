"""Attacks, each with the bound that the nodes keep under the attack."""
