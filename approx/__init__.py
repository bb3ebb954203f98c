"""Polynomial and other replacements of what an encrypted transformer cannot compute: softmax, GELU, LayerNorm, tanh.

One file an operation. Importing the package imports no torch; its modules do.
"""
