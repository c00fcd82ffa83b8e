"""Reads the log in step, knows what belongs to which account, writes final, provisional and restated rows, and commits.

`ledger.py` is the reader, `late.py` what came behind the line, `restating.py` the pass that mends final windows.
"""
