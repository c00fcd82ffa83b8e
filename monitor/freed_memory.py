"""Whether memory that is free again goes back to the system at once: for processes that account windows all day.

An account goes through some hundred columns of 200 kB, each made, used once and let go of. glibc hands the top of its
heap back as soon as some hundred kB of it are free, and the next column has each of its pages made and zeroed anew: a
microsecond of five for each request. What is kept instead is at most what the largest account took.
"""

import ctypes
from typing import Final

KEPT_BYTES: Final = 32 * 2**20
"""The most that glibc takes for the second of its two thresholds."""
_TRIM_THRESHOLD: Final = -1
_MMAP_THRESHOLD: Final = -3
"""As `mallopt` names them: what may be free at the top of the heap, and from which size on a block is none of it."""


def keep_freed_memory() -> bool:
    """From now on, for the whole process; False where the C library is none that can be told, and all is as before."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    told = [mallopt(each, KEPT_BYTES) for each in (_TRIM_THRESHOLD, _MMAP_THRESHOLD)]
    return all(told)
