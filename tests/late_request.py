"""A request whose first token came late, for those who ask until when it waited in its engine's queue."""

from monitor.core.attribution.models import TokenCost
from monitor.core.usage import Usage

T = 1_000.0
TOKENS = 10_000
COST = TokenCost(
    flops_per_token=989e12 * 0.45 * 0.5 / TOKENS, kv_bytes_per_token=0.0, source="given", weight_bytes=16e9
)
"""Half a second for a prompt of 10 000 tokens on an H100, a second at half of the usual speed."""
LATE = Usage(
    host="h",
    namespace="",
    request_id="late",
    model="m",
    team="t",
    devices=("g0",),
    start=T + 1.5,
    first_token=T + 9.0,
    end=T + 20.0,
    input_tokens=TOKENS,
    output_tokens=100,
)
