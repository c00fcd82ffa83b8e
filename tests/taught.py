"""A host whose engine teaches what its board costs: records of a log, worked so that the truth is known."""

from msgspec.structs import replace

from collectors.readings import Device, EnergyReading, EngineReading, HostProfile, ModelFacts
from monitor.core.attribution.priors import PRIOR
from monitor.core.usage import Usage
from monitor.log.codec import ReadingBatch, readings_record, tick_record, usage_record
from monitor.log.protocol import Append

H100 = "NVIDIA H100 80GB HBM3"
GPU = Device(id="g0", kind="gpu", hardware=H100, idle_watts=100.0, idle_source="quiet")
MODEL = ModelFacts(name="m", parameters=8e9, bytes_per_parameter=2.0, kv_bytes_per_token=0.0, devices=("g0",))
PROFILE = HostProfile(host="h", devices=(GPU,), models=(MODEL,))
ENGINE = EngineReading(
    server="vllm-8000",
    model="m",
    devices=("g0",),
    start=0.0,
    end=10.0,
    steps=100.0,
    prefill_tokens=10_000.0,
    decode_tokens=0.0,
    kv_tokens=0.0,
)
"""Ten seconds: 1.6e14 FLOPs and 1.6e12 bytes."""
WINDOWS = 300
FLOP, BYTE = 0.8, 1.1  # of the priors, what this board truly takes


def taught_for_50_minutes(begin: float, host: str = "h") -> list[Append]:
    """50 minutes, a batch each 10 s, prompts and steps in changing proportion; a request at minute 45."""
    records = []
    for window in range(WINDOWS):
        at = begin + 10.0 * window
        steps, tokens = 100.0 + 40.0 * (window % 7), 40_000.0 + 20_000.0 * (window % 5)
        engine = replace(ENGINE, start=at, end=at + 10, steps=steps, prefill_tokens=tokens)
        joules = 1_000.0 + FLOP * PRIOR.joules_per_flop * tokens * 1.6e10 + BYTE * PRIOR.joules_per_byte * steps * 16e9
        reading = EnergyReading(device="g0", start=at, end=at + 10, energy_joules=joules, method="counter")
        batch = ReadingBatch(profile=replace(PROFILE, host=host), readings=(reading,), engines=(engine,))
        records.append(readings_record(batch, at + 11))
    usage = Usage(
        host=host,
        namespace="",
        request_id="r",
        attempt=0,
        model="m",
        team="t",
        start=begin + 2_700,
        end=begin + 2_710,
        devices=("g0",),
        input_tokens=2_000,
        output_tokens=0,
    )
    records.append(usage_record(host, [usage], begin + 2_715))
    return [*sorted(records, key=lambda each: each.stamp or 0.0), tick_record(host, begin + 5_000, stream="readings")]
