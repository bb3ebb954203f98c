"""Lowerings: three ways to make a program of a network, and where their numbers lie in the slots. `plan` takes the cheapest."""
