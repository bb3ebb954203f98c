"""Random encoders and texts, which benchmarks use too."""

from benchmarks.random_models import random_text, random_weights

__all__ = ["random_text", "random_weights"]
