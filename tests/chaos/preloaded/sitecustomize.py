"""Found by each interpreter of a system whose clocks may jump, before anything else.

libfaketime breaks sleeping until an absolute moment of the monotonic clock, which is how Python sleeps.
"""

import os
import select
import time


def _sleep(seconds: float) -> None:
    select.select([], [], [], seconds)


if "faketime" in os.environ.get("LD_PRELOAD", ""):
    time.sleep = _sleep  # type: ignore[assignment]
