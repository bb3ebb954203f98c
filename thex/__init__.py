"""THE-X models in the clear: training, replacing, calibrating and exporting encoders for encrypted inference.

Importing the package imports no torch, so that bundles shipped as package data can be found without it.
"""
