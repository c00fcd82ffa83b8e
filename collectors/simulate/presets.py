"""The scenarios that come with it, by name: demo (a host of two GPUs), and those of loads.py, bends.py and
disaggregated.py."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from collectors.simulate import bends, loads
from collectors.simulate.disaggregated import disaggregated
from collectors.simulate.names import SCENARIOS
from collectors.simulate.parts import AGENT, CHAT, H100, LLAMA_8B, QWEN_4B, QWEN_14B, RAG, REASON, server, tenant
from collectors.simulate.scenario import Burst, Gpu, Periods, Reporting, Scenario, Sensor


def demo(minutes: float = 60.0) -> Scenario:
    """Two GPUs, three models, four teams, pauses, model load before the first request, and a stray process.

    gpu0 serves qwen3-14b and has a counter; gpu1 serves llama-3.1-8b and qwen3-4b and has a noisy power sensor.
    """
    seconds = 60.0 * minutes

    def during(*parts: tuple[float, float]) -> Periods:
        return tuple((begin * seconds, end * seconds) for begin, end in parts)

    return Scenario(
        name="demo",
        host="gpu-host-1",
        zone="FR",
        pue=1.2,
        duration_seconds=seconds,
        gpus=(Gpu(id="gpu0", hardware=H100), Gpu(id="gpu1", hardware=H100)),
        servers=(server(QWEN_14B, "gpu0"), server(LLAMA_8B, "gpu1", 8001), server(QWEN_4B, "gpu1", 8002)),
        tenants=(
            tenant("support", "chat", QWEN_14B, 0.08, CHAT, active=during((0.05, 0.30), (0.36, 0.62), (0.74, 0.95))),
            tenant("coding", "agent", QWEN_14B, 0.06, AGENT, active=during((0.05, 0.30), (0.40, 0.62), (0.74, 0.92))),
            tenant("research", "reasoning", LLAMA_8B, 0.006, REASON, active=during((0.06, 0.40), (0.56, 0.92))),
            tenant("search", "rag", LLAMA_8B, 0.08, RAG, active=during((0.06, 0.42), (0.56, 0.95))),
            tenant("support", "routing", QWEN_4B, 0.12, CHAT, active=during((0.06, 0.42), (0.60, 0.95))),
        ),
        sensors=(
            Sensor(device="gpu0", kind="counter", period_seconds=1.0, averaging_seconds=0.1),
            Sensor(device="gpu1", kind="power", period_seconds=0.2, averaging_seconds=0.2, noise_ratio=0.02),
        ),
        bursts=(
            Burst(device="gpu0", start=0.010 * seconds, end=0.022 * seconds, power_watts=65.0),
            Burst(device="gpu1", start=0.010 * seconds, end=0.018 * seconds, power_watts=65.0),
            Burst(device="gpu0", start=0.665 * seconds, end=0.695 * seconds, power_watts=240.0),
        ),
    )


PRESETS: Mapping[str, Callable[[float], Scenario]] = MappingProxyType(
    {
        "demo": demo,
        "heavy": loads.heavy,
        "light": loads.light,
        "heavy-50": loads.heavy_50,
        "light-50": loads.light_50,
        "rag": loads.rag,
        "long-outputs": loads.long_outputs,
        "prefix-cache": loads.prefix_cache,
        "no-chunks": loads.no_chunks,
        "queue": loads.queue,
        "moe": bends.moe,
        "speculative": bends.speculative,
        "capped": bends.capped,
        "cap-change": bends.cap_change,
        "dvfs": bends.dvfs,
        "sensor-10ms": bends.power_sensor("sensor-10ms", 0.01),
        "sensor-100ms": bends.power_sensor("sensor-100ms", 0.1),
        "sensor-1s": bends.power_sensor("sensor-1s", 1.0),
        "gain-high": bends.counter_gain("gain-high", 1.05),
        "gain-low": bends.counter_gain("gain-low", 0.95),
        "missing-events": bends.told("missing-events", Reporting(missing_ratio=0.01)),
        "skew": bends.told("skew", Reporting(skew_seconds=0.2)),
        "wrong-facts": bends.told("wrong-facts", Reporting(stated_parameters_ratio=0.7)),
        "disaggregated": disaggregated,
        "model-swap": bends.model_swap,
        "engine-restart": bends.engine_restart,
    }
)
DEFAULT_MINUTES: Mapping[str, float] = MappingProxyType(dict.fromkeys(SCENARIOS, 20.0) | {"demo": 60.0})
