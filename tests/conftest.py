"""What all tests have in common.

One OpenMP thread for torch: models are tiny here, and threads that wait for a busy core made seconds of a test minutes. No
example of a property has to be fast: other work may run beside the tests.
"""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, which this comes before
settings.register_profile("any pace", deadline=None)
settings.load_profile("any pace")
