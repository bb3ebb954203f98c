"""Polynomial and other replacements of what an encrypted transformer cannot compute: softmax, GELU, LayerNorm, tanh.

A file or two an operation; `catalogue` has them all with their errors. Importing the package imports no torch; its modules do.
"""
