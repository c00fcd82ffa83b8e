"""Memory that is free again stays with the process: seen by the pages that the system has to make anew."""

import ctypes
import subprocess
import sys

import pytest

ROUNDS, COLUMNS, COLUMN_BYTES, PAGE_BYTES = 50, 40, 200_000, 4_096

_PROGRAM = f"""
import resource
from monitor.freed_memory import keep_freed_memory

def used_up():
    held = [bytearray({COLUMN_BYTES}) for _ in range({COLUMNS})]

assert keep_freed_memory()
used_up()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({ROUNDS}):
    used_up()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="no glibc")
def test_columns_that_come_again_make_no_pages_anew() -> None:
    """50 times 40 columns of 200 kB, 97 656 pages in all: a hundredth of them at most. Without it nearly all are."""
    pages = ROUNDS * COLUMNS * COLUMN_BYTES // PAGE_BYTES
    told = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    assert int(told.stdout) < pages // 100
