"""The commands of the laboratory: python -m lab NAME."""
