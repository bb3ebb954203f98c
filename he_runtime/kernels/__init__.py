"""Numba loops over residues: number-theoretic transform, key switching, products, encoding, seed expansion."""
