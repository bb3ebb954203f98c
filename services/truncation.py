"""Texts cut as in training: what plain models are asked with, and a client that was told to cut."""

from pathlib import Path

from tokenizers import Tokenizer

from he_runtime.bundle import Bundle


def truncating_tokenizer(bundle: Bundle) -> Tokenizer:
    """The bundle's tokenizer, without padding, cutting texts at what its largest bucket holds."""
    return tokenizer_cutting_at(bundle.directory / "tokenizer.json", most_tokens(bundle))


def most_tokens(bundle: Bundle) -> int:
    """Tokens of the longest text that the bundle takes."""
    return min(max(bundle.config.buckets), bundle.config.architecture.positions)


def tokenizer_cutting_at(path: Path, most: int) -> Tokenizer:
    """The tokenizer at path, without padding, cutting texts at `most` tokens; of a pair the longer text loses first."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(most, strategy="longest_first")
    return tokenizer
