"""Looks at the world and imports nothing of `monitor`.

A collector turns one kind of meter, log or stream into records (`readings.py`, `requests/event.py`). To add one, write
one file with a class that has the four members of `collector.Source`, take every root, address and clock as a
parameter, raise one of the three reactions of `errors.py`, and wire it in the role that runs it.
"""
