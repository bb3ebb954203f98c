"""On the path of a server under test: the wall clock that Python reads is off by as many seconds as a file says.

The file is read at every look at the clock, so that a test can have it jump under a running server.
"""

import datetime
import os
import time
from pathlib import Path

_FILE, _true_time = Path(os.environ["THEX_TEST_CLOCK_OFFSET"]), time.time


def _offset() -> float:
    return float(_FILE.read_text() or 0)


def _time() -> float:
    return _true_time() + _offset()


class _Datetime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_Datetime":
        return super().now(tz) + datetime.timedelta(seconds=_offset())


time.time = _time
datetime.datetime = _Datetime  # type: ignore[misc]
