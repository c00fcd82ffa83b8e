"""Scenarios that bend what an attribution assumes: the cost of a step, the meter, the events, or the facts."""

from collections.abc import Callable
from dataclasses import replace
from math import inf

from collectors.simulate.loads import HEAVY_LOAD, heavy
from collectors.simulate.parts import LLAMA_8B, QWEN_14B, QWEN_30B_A3B, day, five_tenants, one_gpu, server
from collectors.simulate.scenario import Burst, Reporting, Scenario, Sensor, Throttle

Preset = Callable[[float], Scenario]
CAP_WATTS = 330.0
CAPPED_LOAD = 0.95  # heavy's would never be worked off
LOADING_WATTS = 65.0
_DOWN, _UP = 0.53, 0.545  # parts of the run, in the pause of day()


def moe(minutes: float = 20.0) -> Scenario:
    """A mixture of experts: a step reads more weights the more tokens it computes."""
    return one_gpu("moe", minutes, 2.5, QWEN_30B_A3B)


def speculative(minutes: float = 20.0) -> Scenario:
    """Three drafted tokens in each decoding step, of which 1.5 are kept on average."""
    scenario = one_gpu("speculative", minutes, 2.6)
    (one,) = scenario.servers
    return replace(scenario, servers=(replace(one, drafted_tokens=3, acceptance_ratio=0.7),))


def capped(minutes: float = 20.0) -> Scenario:
    """The board's power limit is 330 W all the time."""
    throttle = Throttle(device="gpu0", power_limit_watts=CAP_WATTS)
    return replace(one_gpu("capped", minutes, CAPPED_LOAD), throttles=(throttle,))


def cap_change(minutes: float = 20.0) -> Scenario:
    """The power limit falls from 700 to 330 W at 0.7 of the run, under load."""
    throttle = Throttle(device="gpu0", start=0.7 * 60.0 * minutes, power_limit_watts=CAP_WATTS)
    return replace(one_gpu("cap-change", minutes, CAPPED_LOAD), throttles=(throttle,))


def dvfs(minutes: float = 20.0) -> Scenario:
    """The clock falls to 70 % and comes back, twice."""
    spans = ((0.25, 0.40), (0.65, 0.80))
    throttles = (
        Throttle(device="gpu0", start=begin * 60.0 * minutes, end=end * 60.0 * minutes, clock_ratio=0.7)
        for begin, end in spans
    )
    return replace(one_gpu("dvfs", minutes, 1.8), throttles=tuple(throttles))


def power_sensor(name: str, averaging_seconds: float) -> Preset:
    """heavy, read ten times a second by a power sensor that averages over this time, with 2 % noise."""
    sensor = Sensor(
        device="gpu0", kind="power", period_seconds=0.1, averaging_seconds=averaging_seconds, noise_ratio=0.02
    )
    return lambda minutes: replace(heavy(minutes), name=name, sensors=(sensor,))


def counter_gain(name: str, gain: float) -> Preset:
    """heavy, with a counter that is off by a constant factor."""

    def preset(minutes: float) -> Scenario:
        scenario = heavy(minutes)
        (sensor,) = scenario.sensors
        return replace(scenario, name=name, sensors=(replace(sensor, gain=gain),))

    return preset


def told(name: str, reporting: Reporting) -> Preset:
    """heavy, of which this is told."""
    return lambda minutes: replace(heavy(minutes), name=name, reporting=reporting)


def model_swap(minutes: float = 20.0) -> Scenario:
    """In the middle of the run the GPU's 8B model makes room for a 14B one, at the same address."""
    before, after = day(minutes)
    (first, second), load = _down_for_a_while(minutes), 0.45 * HEAVY_LOAD
    return replace(
        one_gpu("model-swap", minutes, load),
        servers=(replace(server(LLAMA_8B, "gpu0"), up=(first,)), replace(server(QWEN_14B, "gpu0"), up=(second,))),
        tenants=(*five_tenants((before,), load, LLAMA_8B), *five_tenants((after,), load, QWEN_14B)),
        bursts=(_loading(minutes),),
    )


def engine_restart(minutes: float = 20.0) -> Scenario:
    """heavy, whose engine is down for a while in its pause: its counters begin at 0 again."""
    scenario = heavy(minutes)
    (one,) = scenario.servers
    servers = (replace(one, up=_down_for_a_while(minutes)),)
    return replace(scenario, name="engine-restart", servers=servers, bursts=(_loading(minutes),))


def _down_for_a_while(minutes: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Down when the last requests before the pause have ended, up before the first ones after it come."""
    seconds = 60.0 * minutes
    return (0.0, _DOWN * seconds), (_UP * seconds, inf)


def _loading(minutes: float) -> Burst:
    """What loading a model takes, as long as its server is down."""
    seconds = 60.0 * minutes
    return Burst(device="gpu0", start=_DOWN * seconds, end=_UP * seconds, power_watts=LOADING_WATTS)
