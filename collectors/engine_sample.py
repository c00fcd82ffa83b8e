"""What a model server's counters stand at, at one moment; two of them -> what it did in between. Pure."""

from typing import Final, NamedTuple

from collectors.errors import Rejected
from collectors.readings import EngineReading
from collectors.units import UnixSeconds

COUNTERS: Final = ("steps_total", "prefill_tokens_total", "cached_tokens_total", "decode_tokens_total")


class EngineSample(NamedTuple):
    """One server and model at `time`; a row of a recording's engine.csv. None is what the server does not tell.

    `*_total` only rise while the server lives, the others are as they are at that moment. All are finite and >= 0.
    """

    time: UnixSeconds
    server: str
    model: str
    devices: tuple[str, ...] = ()
    running: float | None = None
    waiting: float | None = None
    steps_total: float | None = None
    prefill_tokens_total: float | None = None
    cached_tokens_total: float | None = None
    decode_tokens_total: float | None = None
    kv_tokens: float | None = None


def reading_between(before: EngineSample, after: EngineSample) -> EngineReading:
    """What the server did between two samples of one model, the later one's devices and gauges with it.

    A counter that only one of them tells has no difference: None. Raises Rejected `counter_reset` where any fell: the
    server began anew, and what it did in between is not known. 4 100 and 4 160 steps are 60; 4 160 and 12 are none.
    """
    for name in COUNTERS:
        old, new = getattr(before, name), getattr(after, name)
        if old is not None and new is not None and new < old:
            raise Rejected("counter_reset", f"{name} of {after.server!r} fell from {old:g} to {new:g}: it began anew")
    return EngineReading(
        server=after.server,
        model=after.model,
        devices=after.devices,
        start=before.time,
        end=after.time,
        steps=_difference(before.steps_total, after.steps_total),
        prefill_tokens=_difference(before.prefill_tokens_total, after.prefill_tokens_total),
        cached_tokens=_difference(before.cached_tokens_total, after.cached_tokens_total),
        decode_tokens=_difference(before.decode_tokens_total, after.decode_tokens_total),
        running=after.running,
        waiting=after.waiting,
        kv_tokens=after.kv_tokens,
    )


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before
