"""The scenarios that come with it: heavy and light (one GPU, five tenants), and demo (a host of two GPUs)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from collectors.simulate.scenario import Burst, Gpu, Hardware, Lengths, Model, Scenario, Sensor, Server, Tenant

# Peaks and power limit: NVIDIA's H100 SXM data sheet (dense bf16). The rest: bands of docs/simulator.md, "Constants".
H100 = Hardware(
    name="NVIDIA H100 80GB HBM3",
    peak_flops_per_second=989e12,
    peak_bytes_per_second=3.35e12,
    flops_efficiency=0.47,
    bytes_efficiency=0.72,
    idle_watts=110.0,
    power_limit_watts=700.0,
    joules_per_flop=1.05e-12,
    joules_per_byte=0.17e-9,
)
LLAMA_8B = Model(
    name="llama-3.1-8b",
    parameters=8.03e9,
    active_parameters=8.03e9,
    bytes_per_parameter=2.0,
    kv_bytes_per_token=131_072.0,  # 2 x 32 layers x 8 heads x 128 x 2 bytes
)
QWEN_14B = Model(
    name="qwen3-14b",
    parameters=14.8e9,
    active_parameters=14.8e9,
    bytes_per_parameter=2.0,
    kv_bytes_per_token=163_840.0,  # 2 x 40 layers x 8 heads x 128 x 2 bytes
)
QWEN_4B = Model(
    name="qwen3-4b",
    parameters=4.02e9,
    active_parameters=4.02e9,
    bytes_per_parameter=2.0,
    kv_bytes_per_token=147_456.0,  # 2 x 36 layers x 8 heads x 128 x 2 bytes
)
Periods = tuple[tuple[float, float], ...]
Shape = tuple[Lengths, Lengths, float, float]  # inputs, outputs, burstiness, cached ratio

CHAT_ANSWER = Lengths(median_tokens=300, sigma=0.7, maximum_tokens=2048)
SHORT_ANSWER = Lengths(median_tokens=150, sigma=0.6, maximum_tokens=1024)
LONG_ANSWER = Lengths(median_tokens=400, sigma=0.4, maximum_tokens=1500)
REASONING = Lengths(median_tokens=2000, sigma=0.5, maximum_tokens=5000)

CHAT: Shape = (Lengths(median_tokens=350, sigma=0.8, maximum_tokens=4096), CHAT_ANSWER, 1.5, 0.0)
RAG: Shape = (Lengths(median_tokens=5000, sigma=0.4, maximum_tokens=12_000), SHORT_ANSWER, 1.5, 0.0)
AGENT: Shape = (Lengths(median_tokens=6000, sigma=0.5, maximum_tokens=16_000), SHORT_ANSWER, 3.0, 0.85)
SUMMARY: Shape = (Lengths(median_tokens=7000, sigma=0.5, maximum_tokens=16_000), LONG_ANSWER, 2.0, 0.0)
REASON: Shape = (Lengths(median_tokens=300, sigma=0.6, maximum_tokens=2048), REASONING, 1.0, 0.0)


def _server(model: Model, device: str, port: int = 8000) -> Server:
    return Server(model=model, devices=(device,), step_seconds=0.0015, step_joules=0.1, port=port)


def _tenant(team: str, use_case: str, model: Model, rate: float, shape: Shape, *, active: Periods) -> Tenant:
    inputs, outputs, burstiness, cached_ratio = shape
    return Tenant(
        team=team,
        use_case=use_case,
        model=model.name,
        requests_per_second=rate,
        inputs=inputs,
        outputs=outputs,
        active=active,
        burstiness=burstiness,
        cached_ratio=cached_ratio,
    )


def _five_tenants(active: Periods, load: float) -> tuple[Tenant, ...]:
    """Chat, retrieval, agent with prefix cache, summary and reasoning, `load` requests of a chat per second."""
    return (
        _tenant("helpdesk", "chat", LLAMA_8B, load, CHAT, active=active),
        _tenant("search", "rag", LLAMA_8B, load * 0.375, RAG, active=active),
        _tenant("coding", "agent", LLAMA_8B, load * 0.5, AGENT, active=active),
        _tenant("legal", "summary", LLAMA_8B, load * 0.19, SUMMARY, active=active),
        _tenant("research", "reasoning", LLAMA_8B, load * 0.22, REASON, active=active),
    )


def _one_gpu(name: str, minutes: float, load: float) -> Scenario:
    """A quiet lead-in, a pause in the middle, and a quiet end."""
    seconds = 60.0 * minutes
    active = ((0.02 * seconds, 0.48 * seconds), (0.56 * seconds, 0.96 * seconds))
    sensor = Sensor(device="gpu0", kind="counter", period_seconds=1.0, averaging_seconds=0.1)
    return Scenario(
        name=name,
        host="sim-1",
        zone="FR",
        pue=1.2,
        duration_seconds=seconds,
        gpus=(Gpu(id="gpu0", hardware=H100),),
        servers=(_server(LLAMA_8B, "gpu0"),),
        tenants=_five_tenants(active, load),
        sensors=(sensor,),
    )


def heavy(minutes: float = 20.0) -> Scenario:
    """A saturated engine: about 48 requests in a step."""
    return _one_gpu("heavy", minutes, 2.1)


def light(minutes: float = 20.0) -> Scenario:
    """The same tenants, seldom: about 1.6 requests in a step."""
    return _one_gpu("light", minutes, 0.12)


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
        servers=(_server(QWEN_14B, "gpu0"), _server(LLAMA_8B, "gpu1", 8001), _server(QWEN_4B, "gpu1", 8002)),
        tenants=(
            _tenant("support", "chat", QWEN_14B, 0.08, CHAT, active=during((0.05, 0.30), (0.36, 0.62), (0.74, 0.95))),
            _tenant("coding", "agent", QWEN_14B, 0.06, AGENT, active=during((0.05, 0.30), (0.40, 0.62), (0.74, 0.92))),
            _tenant("research", "reasoning", LLAMA_8B, 0.006, REASON, active=during((0.06, 0.40), (0.56, 0.92))),
            _tenant("search", "rag", LLAMA_8B, 0.08, RAG, active=during((0.06, 0.42), (0.56, 0.95))),
            _tenant("support", "routing", QWEN_4B, 0.12, CHAT, active=during((0.06, 0.42), (0.60, 0.95))),
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


PRESETS: Mapping[str, Callable[[float], Scenario]] = MappingProxyType({"heavy": heavy, "light": light, "demo": demo})
DEFAULT_MINUTES: Mapping[str, float] = MappingProxyType({"heavy": 20.0, "light": 20.0, "demo": 60.0})
