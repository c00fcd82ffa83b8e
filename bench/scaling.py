"""What a host costs: 1, 10, 100 and 1 000 simulated hosts through one aggregator, and the exponent of cost in hosts."""

import math
import resource
import time

from bench._ledger_load import START, ListLog, NullStore, fleet_records, in_log_time
from monitor.core.facts import Facts
from monitor.core.membership import Accounting
from monitor.ledger.ledger import Ledger

GPUS, SECONDS, REQUESTS_PER_SECOND = 8, 60, 1.0
HOSTS = (1, 10, 100, 1_000)
TERMS = Accounting(horizon_seconds=30.0, mark_seconds=30.0)


def run() -> list[str]:
    """A line for each number of hosts, in seconds of CPU, and the fitted exponent."""
    lines, points = [], []
    for hosts in HOSTS:
        seconds, rows = _cost(hosts)
        per_host = 1e3 * seconds / hosts / (SECONDS / TERMS.window_seconds)
        points.append((math.log(hosts), math.log(seconds)))
        lines.append(
            f"scaling: {hosts:>5} hosts of {GPUS} GPUs at {REQUESTS_PER_SECOND:g} request/s: {seconds:.2f} s of CPU for"
            f" {SECONDS} s, {per_host:.2f} ms a host and window, {rows:,} rows"
        )
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024
    return [*lines, f"scaling: cost grows with hosts to the power {_slope(points):.3f}; {megabytes:.0f} MB at most"]


def _cost(hosts: int) -> tuple[float, int]:
    """Seconds of CPU to account a minute of so many hosts, once warm; of few hosts the mean of several rounds."""
    records = fleet_records(hosts, gpus=GPUS, requests_per_second=REQUESTS_PER_SECOND, seconds=SECONDS, batch=500)
    appends = in_log_time(records, START + SECONDS + 100.0)
    rounds = max(1, 30 // hosts)
    store = NullStore()
    for warm in (True, False):
        store, begun = NullStore(), time.process_time()
        for _ in range(1 if warm and hosts < 1_000 else 0 if warm else rounds):
            ledger = Ledger(ListLog(appends), store, TERMS, lambda: Facts([]), show_provisional=False)
            while ledger.step():
                pass
        seconds = (time.process_time() - begun) / rounds
    return seconds, store.rows // rounds


def _slope(points: list[tuple[float, float]]) -> float:
    mean_x, mean_y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / sum((x - mean_x) ** 2 for x, _ in points)


if __name__ == "__main__":
    print("\n".join(run()))
