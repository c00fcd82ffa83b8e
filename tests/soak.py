"""`make soak`: the long crash tests, on real servers. Prints what each left; exit code 1 where the books differ.

python tests/soak.py driven    an hour of 8 hosts at 500 requests/s under 200 kills, and 10 of each server
python tests/soak.py broker    20 minutes in real time, stamped by the broker, under 20 kills
"""

import sys
import tempfile
import time
from pathlib import Path

from crash import CrashRun, Outcome, Plan

SECONDS_AHEAD = 30.0


def plan_of(kind: str, seed: int) -> Plan:
    """The plan of one run."""
    if kind == "broker":
        return Plan(
            seed=seed,
            hosts=4,
            minutes=20.0,
            requests_per_second=50.0,
            kills=20,
            server_kills=1,
            speed=1.0,
            horizon_seconds=120.0,
            mark_seconds=120.0,
            start=(time.time() + SECONDS_AHEAD) // 10 * 10.0,
            clock="broker",
        )
    return Plan(
        seed=seed,
        hosts=8,
        minutes=60.0,
        requests_per_second=500.0,
        kills=200,
        server_kills=10,
        speed=2.0,
        horizon_seconds=120.0,
        mark_seconds=120.0,
        late_ratio=0.0005,  # some 900 requests: of the 2 880 windows about a third is restated
        partitions=8,
        patience_seconds=3_600.0,
    )


def main(kinds: list[str]) -> int:
    """Runs them one after the other."""
    worst = 0
    for kind in kinds or ["driven", "broker"]:
        plan = plan_of(kind, seed=20_261_127)
        folder = Path(tempfile.mkdtemp(prefix=f"wattribute-soak-{kind}-"))
        print(f"{kind}: {plan}\n{kind}: in {folder}", flush=True)
        outcome = CrashRun(plan, folder, lambda text: print(text, flush=True)).run()
        worst = max(worst, told(kind, plan, outcome))
    return worst


def told(kind: str, plan: Plan, outcome: Outcome) -> int:
    """Prints what a run left; 1 where it is not what it has to be."""
    facts = {
        "kills": outcome.kills,
        "events": outcome.events,
        "lines of the books": outcome.lines,
        "missing": len(outcome.missing),
        "surplus": len(outcome.surplus),
        "joules measured": outcome.measured_joules,
        "joules recorded": outcome.recorded_joules,
        "restatements": outcome.restatements,
        "too late": outcome.too_late,
        "holes": outcome.holes,
        "lives of ledgers": outcome.resumed,
        "most read again, s": outcome.most_reread_seconds,
        "bound, s": plan.reread_bound_seconds,
        "took, s": round(outcome.wall_seconds),
    }
    for name, value in facts.items():
        print(f"{kind}: {name:<20} {value}")
    for line in (outcome.missing + outcome.surplus)[:10]:
        print(f"{kind}: differs: {line[:300]}")
    good = not (outcome.missing or outcome.surplus or outcome.too_late or outcome.holes)
    return 0 if good and outcome.most_reread_seconds <= plan.reread_bound_seconds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
