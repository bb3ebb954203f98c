"""Byte formats of what crosses the network, read by bounds-checked Python before anything else sees a byte."""
