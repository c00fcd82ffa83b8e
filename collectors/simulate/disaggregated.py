"""Prefill and decode on servers of their own: one host, two GPUs, and each request has been on both."""

from dataclasses import replace

from collectors.simulate.parts import H100, LLAMA_8B, one_gpu, server
from collectors.simulate.scenario import Gpu, Scenario, Sensor

LOAD = 3.0
HANDOVER_SECONDS = 0.005
HANDOVER_BYTES_PER_SECOND = 50e9  # an eighth of NVLink's data sheet: block by block, beside everything else


def disaggregated(minutes: float = 20.0) -> Scenario:
    """The teams of heavy, more often: prompts on gpu0, answers on gpu1, of which about 45 in a step."""
    scenario = one_gpu("disaggregated", minutes, LOAD)
    prefill, decode = replace(server(LLAMA_8B, "gpu0"), phase="prefill"), server(LLAMA_8B, "gpu1", 8001)
    decode = replace(
        decode,
        phase="decode",
        handover_seconds=HANDOVER_SECONDS,
        handover_bytes_per_second=HANDOVER_BYTES_PER_SECOND,
    )
    return replace(
        scenario,
        gpus=(Gpu(id="gpu0", hardware=H100), Gpu(id="gpu1", hardware=H100)),
        servers=(prefill, decode),
        sensors=tuple(
            Sensor(device=device, kind="counter", period_seconds=1.0, averaging_seconds=0.1)
            for device in ("gpu0", "gpu1")
        ),
    )
