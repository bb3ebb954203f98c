"""Encrypted execution of a transformer: parameters, programs, engines, keys and wire formats.

Imports neither torch nor grpc; only `he_runtime.seal` imports tenseal.
"""
