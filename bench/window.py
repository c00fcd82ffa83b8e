"""How fast a window's books are made: 1 000 requests of two GPUs to rows, beside the pure split of the same window."""

import time
from collections.abc import Callable

import numpy as np

from collectors.readings import Device, EnergyReading, HostProfile, ModelFacts
from monitor.core.account import account
from monitor.core.attribution.virtual_energy import split
from monitor.core.demand import Ask, demand_of, requests_on_each
from monitor.core.readings import Told, meter_of, own_pieces
from monitor.core.usage import Usage
from monitor.core.usage_columns import columns_of
from monitor.core.usage_order import in_order

REQUESTS = 1_000
START, LENGTH_SECONDS = 1_700_000_000.0, 10.0
_ROUNDS = 15
_GPUS = 2


def run() -> list[str]:
    """One line: requests a second with the rows of all accounts, and how much of it is the split alone."""
    profile, readings, usages = _profile(), _readings(_profile()), _usages()
    rows = len(_account(readings, usages))
    whole = _best_seconds(lambda: _account(readings, usages))
    pure = _best_seconds(lambda: _splits(profile, readings, usages))
    return [
        f"window: {REQUESTS / whole:,.0f} requests/s from usages and 1 Hz readings to {rows} rows"
        f" ({1e3 * whole:.1f} ms for {REQUESTS} on {_GPUS} GPUs), {whole / pure:.1f} x its columns and split alone"
        f" ({REQUESTS / pure:,.0f} requests/s)"
    ]


def _account(readings: list[Told], usages: list[Usage]) -> list[object]:
    made = account(
        "h1",
        START,
        START + LENGTH_SECONDS,
        readings=readings,
        usages=columns_of(usages),
        nearby=lambda _device, _start, _end: [],
        intensity_at=lambda _zone, _at: None,
        revision=0,
    )
    return list(made.rows)


def _splits(profile: HostProfile, readings: list[Told], usages: list[Usage]) -> None:
    demand = demand_of(in_order(columns_of(usages)), START)
    for device in profile.devices:
        mine = [told for told in readings if told.reading.device == device.id]
        chosen = demand.on(device)
        ask = Ask(device, chosen, demand.active[chosen], idle_watts=110.0)
        split(
            meter_of(own_pieces(mine, [], lambda _device, _start, _end: [], START, START + LENGTH_SECONDS), START),
            requests_on_each([demand], [ask], profile)[0],
            length_seconds=LENGTH_SECONDS,
            idle_watts=110.0,
            shares_idle=True,
            elsewhere=(np.empty(0), np.empty(0)),
        )


def _profile() -> HostProfile:
    devices = tuple(Device(id=f"gpu{each}", kind="gpu", hardware="NVIDIA H100 80GB HBM3") for each in range(_GPUS))
    models = (ModelFacts(name="llama-3.1-8b", parameters=8.03e9, kv_bytes_per_token=131_072.0),)
    return HostProfile(host="h1", zone="FR", pue=1.2, devices=devices, models=models)


def _readings(profile: HostProfile) -> list[Told]:
    return [
        Told(
            EnergyReading(
                device=device.id,
                start=START + second,
                end=START + second + 1.0,
                energy_joules=400.0 + second,
                method="counter",
            ),
            profile,
        )
        for device in profile.devices
        for second in range(int(LENGTH_SECONDS))
    ]


def _usages() -> list[Usage]:
    """Half of them on each GPU: some began before the window, some end after it."""
    random = np.random.default_rng(1)
    starts = np.sort(random.uniform(START - 8.0, START + LENGTH_SECONDS, REQUESTS)).tolist()
    prefill, decode = random.uniform(0.05, 0.3, REQUESTS).tolist(), random.uniform(0.5, 8.0, REQUESTS).tolist()
    return [
        Usage(
            host="h1",
            namespace="default",
            request_id=f"request-{i:06d}",
            model="llama-3.1-8b",
            team=f"team-{i % 5}",
            devices=(f"gpu{i % _GPUS}",),
            start=start,
            scheduled=start,
            first_token=start + prefill[i],
            end=max(start + prefill[i] + decode[i], START + 0.1),
            input_tokens=500 + i,
            cached_input_tokens=0,
            output_tokens=100 + i % 300,
            labels={"use_case": "chat"},
        )
        for i, start in enumerate(starts)
    ]


def _best_seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


if __name__ == "__main__":
    print("\n".join(run()))
