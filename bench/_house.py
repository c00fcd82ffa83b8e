"""A recording through the whole house, in this process: log, ledger, core and store in a folder."""

import os
import time
from pathlib import Path

from collectors.recording import load_recording
from monitor.config.load import load_config
from monitor.core.questions import RequestsQuery
from monitor.core.request_sums import RequestLine
from monitor.query import every_request
from monitor.roles.embedded import LOCAL_ADMIN, Embedded
from monitor.service import replay_into


def replay_folder(recording: Path, data: Path) -> float:
    """Loads and plays the recording as fast as it goes; returns how many seconds that took."""
    begun = time.perf_counter()
    config = load_config(None, environ=os.environ)
    with Embedded(data, config) as house:
        replay_into(house, [load_recording(recording, allowed_labels=config.accounting.label_keys)])
    return time.perf_counter() - begun


def requests_in(data: Path) -> list[RequestLine]:
    """What stands in the books of each request."""
    with Embedded(data, load_config(None, environ=os.environ)) as house:
        return list(every_request(house.query(), LOCAL_ADMIN, RequestsQuery(start=0.0, end=4e9)))
