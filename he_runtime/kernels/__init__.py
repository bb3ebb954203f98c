"""Numba loops over residues: number-theoretic transform, key switching, products, encoding, seed expansion."""

from he_runtime.kernels.vectors import compile_for_whole_vectors

compile_for_whole_vectors()
