"""Texts cut as in training: what plain models are asked with. A client refuses a text that is too long instead."""

from tokenizers import Tokenizer

from he_runtime.bundle import Bundle


def truncating_tokenizer(bundle: Bundle) -> Tokenizer:
    """The bundle's tokenizer, without padding, cutting texts at what its largest bucket holds."""
    tokenizer = Tokenizer.from_file(str(bundle.directory / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(min(max(bundle.config.buckets), bundle.config.architecture.positions))
    return tokenizer
