"""Where compiled kernels are kept: in a directory of all their sources, and nothing of other code."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = """
from he_runtime.kernels import compiling
compiling.__file__ = {own!r}
from {name}.calling import total
from numba import config
import numpy as np
assert config.CACHE_DIR == {before!r}, config.CACHE_DIR
print(int(total(np.arange(5))), sorted(total.stats.cache_hits.values()))
"""
CALLED = "from he_runtime.kernels.compiling import kernel\n\n\n@kernel\ndef term(x):\n    return {factor} * x\n"
CALLING = """from he_runtime.kernels.compiling import kernel
from {name}.called import term


@kernel
def total(x):
    s = 0
    for i in range(x.shape[0]):
        s += term(x[i])
    return s
"""


@pytest.mark.parametrize("given", [True, False])
def test_a_kernel_is_compiled_anew_when_what_it_calls_has_changed(tmp_path: Path, given: bool) -> None:
    """numba alone would go on with the old code: the file of the caller is what it was."""
    package, name = tmp_path / "loops", "loops"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "calling.py").write_text(CALLING.format(name=name))
    before = str(tmp_path / "given") if given else ""
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "XDG_CACHE_HOME": str(tmp_path / "home")}
    environment.pop("NUMBA_CACHE_DIR", None)
    if given:
        environment["NUMBA_CACHE_DIR"] = before
    program = PACKAGE.format(own=str(package / "calling.py"), name=name, before=before)
    for factor, expected in ((3, "30 []"), (3, "30 [1]"), (7, "70 []")):
        (package / "called.py").write_text(CALLED.format(factor=factor))
        ran = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert ran.stdout.strip() == expected
    kept = (tmp_path / "given") if given else (tmp_path / "home" / "thex" / "kernels")
    assert len(list(kept.iterdir())) == 2
