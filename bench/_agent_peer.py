"""A peer of the agent, run by itself: `PYTHON _agent_peer.py codecarbon|zeus FILE`, with an interpreter that has it.

It measures all GPUs and packages once a second, as its documentation says, and writes the moment of each measurement to
FILE: one float64 (unix seconds) each. It keeps no books and stores nothing else; it goes on until it is killed.
"""

import sys
import time
from array import array
from typing import BinaryIO


def codecarbon(moments: BinaryIO) -> None:
    """A tracker of the whole machine, offline, with memory; its CSV is written when it ends."""
    from codecarbon import OfflineEmissionsTracker  # type: ignore[import-not-found]

    class Tracker(OfflineEmissionsTracker):  # type: ignore[misc]
        def _measure_power_and_energy(self) -> None:
            _tell(moments)
            super()._measure_power_and_energy()

    tracker = Tracker(
        country_iso_code="FRA",
        measure_power_secs=1,
        tracking_mode="machine",
        log_level="error",
        allow_multiple_runs=True,
        rapl_include_dram=True,
    )
    tracker.start()
    gpus = sum(len(each.gpu_ids) for each in tracker._hardware if hasattr(each, "gpu_ids"))
    others = ", ".join(repr(each) for each in tracker._hardware if not hasattr(each, "gpu_ids"))
    print(f"meters {gpus} GPUs, {others}", flush=True)
    while True:
        time.sleep(3600.0)


def zeus(moments: BinaryIO) -> None:
    """A monitor of all GPUs and packages with a window of a second after the other, at absolute deadlines."""
    from zeus.monitor import ZeusMonitor  # type: ignore[import-not-found]

    monitor = ZeusMonitor()
    print(f"meters {len(monitor.gpu_indices)} GPUs, {len(monitor.cpu_indices)} packages", flush=True)
    monitor.begin_window("second", sync_execution=False)
    deadline = time.monotonic()
    while True:
        deadline += 1.0
        time.sleep(max(0.0, deadline - time.monotonic()))
        _tell(moments)
        monitor.end_window("second", sync_execution=False)
        monitor.begin_window("second", sync_execution=False)


def _tell(moments: BinaryIO) -> None:
    moments.write(array("d", [time.time()]).tobytes())


if __name__ == "__main__":  # Zeus starts processes that import this file again
    with open(sys.argv[2], "wb", buffering=0) as file:
        {"codecarbon": codecarbon, "zeus": zeus}[sys.argv[1]](file)
