"""What scenarios are made of: a GPU, models, shapes of requests, and one GPU with its five tenants."""

from collectors.simulate.scenario import Gpu, Hardware, Lengths, Model, Periods, Scenario, Sensor, Server, Tenant

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
QWEN_30B_A3B = Model(
    name="qwen3-30b-a3b",
    parameters=30.5e9,
    active_parameters=3.3e9,
    bytes_per_parameter=2.0,
    kv_bytes_per_token=98_304.0,  # 2 x 48 layers x 4 heads x 128 x 2 bytes
    tokens_of_all_experts=256.0,
)
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


def server(model: Model, device: str, port: int = 8000) -> Server:
    """A replica on one board, with 1.5 ms and 0.1 J of overhead in each step."""
    return Server(model=model, devices=(device,), step_seconds=0.0015, step_joules=0.1, port=port)


def tenant(team: str, use_case: str, model: Model, rate: float, shape: Shape, *, active: Periods) -> Tenant:
    """A team's use of a model: `rate` requests of this shape per second."""
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


def five_tenants(active: Periods, load: float, model: Model = LLAMA_8B) -> tuple[Tenant, ...]:
    """Chat, retrieval, agent with prefix cache, summary and reasoning, `load` requests of a chat per second."""
    return (
        tenant("helpdesk", "chat", model, load, CHAT, active=active),
        tenant("search", "rag", model, load * 0.375, RAG, active=active),
        tenant("coding", "agent", model, load * 0.5, AGENT, active=active),
        tenant("legal", "summary", model, load * 0.19, SUMMARY, active=active),
        tenant("research", "reasoning", model, load * 0.22, REASON, active=active),
    )


def day(minutes: float) -> Periods:
    """When the tenants of one GPU are active: after a quiet lead-in, with a pause in the middle, to a quiet end."""
    seconds = 60.0 * minutes
    return (0.02 * seconds, 0.48 * seconds), (0.56 * seconds, 0.96 * seconds)


def one_gpu(name: str, minutes: float, load: float, model: Model = LLAMA_8B) -> Scenario:
    """One H100 with a true counter that is read each second, and five tenants of one model."""
    return Scenario(
        name=name,
        host="sim-1",
        zone="FR",
        pue=1.2,
        duration_seconds=60.0 * minutes,
        gpus=(Gpu(id="gpu0", hardware=H100),),
        servers=(server(model, "gpu0"),),
        tenants=five_tenants(day(minutes), load, model),
        sensors=(Sensor(device="gpu0", kind="counter", period_seconds=1.0, averaging_seconds=0.1),),
    )
