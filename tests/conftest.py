"""One OpenMP thread for torch: models are tiny here, and threads that wait for a busy core made seconds of a test minutes."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported, which this comes before
