"""What is simulated: hardware, servers, tenants, sensors and bursts that nobody reports. Facts only, no behaviour.

Times are seconds from the start of the recording; intervals are half-open.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal

Periods = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """A GPU type: data sheet peaks, the part of them that kernels reach (0-1), and what work costs on it."""

    name: str
    peak_flops_per_second: float
    peak_bytes_per_second: float
    flops_efficiency: float
    bytes_efficiency: float
    idle_watts: float
    power_limit_watts: float
    joules_per_flop: float
    joules_per_byte: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One board of the host."""

    id: str
    hardware: Hardware


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    """A transformer; `kv_bytes_per_token` is 2 x layers x KV heads x head size x bytes.

    `tokens_of_all_experts` makes it a mixture of experts: a step of one token reads the active parameters, a step of so
    many tokens or more reads all, in between as the square root of the tokens. Without it a step reads the active ones.
    """

    name: str
    parameters: float
    active_parameters: float
    bytes_per_parameter: float
    kv_bytes_per_token: float
    tokens_of_all_experts: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """An engine replica. Several `devices` are one tensor-parallel group of equal boards.

    `step_seconds` and `step_joules` are the overhead of any step (launches, sampling, all-reduce). At most `max_batch`
    requests take part in a step, and at most `chunk_tokens` tokens. Its metrics stand at `port`.

    With `drafted_tokens` it speculates: a decoding request computes so many more tokens in each step, and keeps them up
    to the first one that fails; each holds with `acceptance_ratio` (0-1, below 1) after the one before: of 3 drafts at
    0.7, 0.7 + 0.49 + 0.343 = 1.533 are kept on average. Requests that come while it is not `up` wait until it is; what
    came before, it serves to the end. With each period its counters begin at 0.

    A server of phase "prefill" computes prompts, and with each the first token; one of phase "decode" makes the others.
    It takes a prompt's KV cache over in `handover_seconds` and its bytes over `handover_bytes_per_second`.
    """

    model: Model
    devices: tuple[str, ...]
    step_seconds: float
    step_joules: float
    max_batch: int = 256
    chunk_tokens: int = 2048
    prefix_cache: bool = True
    port: int = 8000
    drafted_tokens: int = 0
    acceptance_ratio: float = 0.0
    up: Periods = ((0.0, inf),)
    phase: Literal["both", "prefill", "decode"] = "both"
    handover_seconds: float = 0.0
    handover_bytes_per_second: float = inf

    @property
    def address(self) -> str:
        """The server's name on its host: "127.0.0.1:8000"."""
        return f"127.0.0.1:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Lengths:
    """Token counts: log-normal around `median_tokens` with this sigma of the logarithm, in [1, maximum_tokens]."""

    median_tokens: float
    sigma: float
    maximum_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Tenant:
    """One team's use of one model: requests that come at `requests_per_second` while a period of `active` runs.

    `burstiness` is the squared coefficient of variation of the time between requests: 1 is Poisson, above it is bursty.
    `cached_ratio` (0-1) of a prompt is in the prefix cache from the tenant's second request on.
    """

    team: str
    use_case: str
    model: str
    requests_per_second: float
    inputs: Lengths
    outputs: Lengths
    active: Periods
    burstiness: float = 1.0
    cached_ratio: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """How one device is read: every `period_seconds`, a power sample or a cumulative energy counter.

    A power sample is the mean of the last `averaging_seconds`; a counter stands still for `averaging_seconds` between
    refreshes (0: it never does). `noise_ratio` is the standard deviation of a sample, or of a counter's increment,
    relative to it. `gain` is the board's constant factor, 1.0 for a true one.
    """

    device: str
    kind: Literal["power", "counter"]
    period_seconds: float
    averaging_seconds: float = 0.0
    noise_ratio: float = 0.0
    gain: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Burst:
    """Work that no request stands for: a model being loaded, a stray process. Constant power above all else."""

    device: str
    start: float
    end: float
    power_watts: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Throttle:
    """For a while a board runs at `clock_ratio` (0-1) of its clock, or under a lower power limit than its own.

    What this does is in rates.py. A step that has begun ends as it began.
    """

    device: str
    start: float = 0.0
    end: float = inf
    clock_ratio: float = 1.0
    power_limit_watts: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Reporting:
    """How what is told departs from what happened; the truth stays.

    `missing_ratio` (0-1) of the events never come. The gateway's clock is `skew_seconds` ahead of the host's. Events
    may lack `scheduled` or `first_token`. host.toml says `stated_parameters_ratio` times the models' parameters.
    """

    missing_ratio: float = 0.0
    skew_seconds: float = 0.0
    scheduled: bool = True
    first_token: bool = True
    stated_parameters_ratio: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Scenario:
    """A host and what happens on it for `duration_seconds`, and longer until the last request has ended."""

    name: str
    host: str
    zone: str
    pue: float
    duration_seconds: float
    gpus: tuple[Gpu, ...]
    servers: tuple[Server, ...]
    tenants: tuple[Tenant, ...]
    sensors: tuple[Sensor, ...]
    bursts: tuple[Burst, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    reporting: Reporting = Reporting()

    def hardware(self, device: str) -> Hardware:
        """The GPU type of a device; raises KeyError for one that the host does not have."""
        return {gpu.id: gpu.hardware for gpu in self.gpus}[device]
