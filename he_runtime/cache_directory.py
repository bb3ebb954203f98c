"""Where caches are kept. Pure Python: the server's front asks before a worker does."""

import os
from pathlib import Path


def default_cache_directory() -> Path:
    """`thex` under XDG_CACHE_HOME, or under ~/.cache."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path.home() / ".cache") / "thex"
