"""Marginal energy of a request: two scalars of the GPU type, by default physical priors, and the model's known facts.

Method: reference methodology of this project, derived from ML.ENERGY's published sweeps (leaderboard v3, read
2026-11-23). The scalars are J/FLOP and J/byte of dynamic energy; static power is added for the time that the work takes
on the board's roofline. What a step costs beside its tokens (weights, overhead) is not marginal: virtual_energy.py
shares it equally.
"""

import msgspec

from monitor.core.attribution.certainty import PRIOR_CERTAINTY, Certainty
from monitor.core.attribution.hardware import BYTE_EFFICIENCY, FLOP_EFFICIENCY, Hardware
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.units import UnitPrice


class Scalars(msgspec.Struct, frozen=True, kw_only=True):
    """What a GPU type's work costs above idle power, and how well that is known.

    `units`: what work that makes no tokens costs, as learned. `routing_exponent`: how many experts the tokens of a step
    read, as for `TokenCost`.
    """

    joules_per_flop: float
    joules_per_byte: float
    certainty: Certainty = PRIOR_CERTAINTY
    units: tuple[UnitPrice, ...] = ()
    routing_exponent: float = 1.0


PRIOR = Scalars(joules_per_flop=1.2e-12, joules_per_byte=0.18e-9)
"""Bands 1.0-1.4e-12 on H100 at bf16, and 0.15-0.2e-9."""


class Marginals(msgspec.Struct, frozen=True, kw_only=True):
    """Joules that one more token costs: computed in prefill, decoded, and per context token read while decoding.

    `step_joules` is what a step costs that reads the weights once, for however many tokens; 0 where nobody knows.
    `byte_joules` is, of a mixture of experts, a byte read while others compute, which takes no time of its own; else 0.
    """

    prefill_joules: float
    decode_joules: float
    context_joules: float
    step_joules: float = 0.0
    byte_joules: float = 0.0


HELD_FROM = 1.1
"""A level of power counts as a limit from so much on that its idle part exceeds the roofline's: a board that nothing
holds back comes near it as well (1.05 where one request decodes alone), because of steps' overhead."""


def marginals(
    cost: TokenCost,
    hardware: Hardware,
    idle_watts: float,
    scalars: Scalars = PRIOR,
    *,
    held_watts: float | None = None,
) -> Marginals:
    """The marginals of a model on a device, which is held at `held_watts` by a power limit (None: it is not).

    8e9 parameters on an H100 (989e12 FLOP/s x 0.45, 70 W idle): 1.6e10 FLOP x (1.2e-12 J + 70 W / 4.4505e14 FLOP/s) =
    0.0192 J + 0.0025 J = 0.0217 J per token; 131 072 B x (0.18e-9 J + 70 W / 2.5125e12 B/s) = 2.72e-5 J per context
    token read. Held at 280 W, of which 210 W do the work, idle power adds a third to the joules of the work however
    fast that could be: 1.6e10 FLOP x 1.2e-12 J x 280/210 = 0.0256 J per token.
    """
    flop, byte = _by_the_roofline(hardware, idle_watts, scalars)
    read = scalars.joules_per_byte
    factor = held_factor(hardware, idle_watts, scalars, held_watts)
    if factor is not None:
        flop, byte = factor * scalars.joules_per_flop, factor * scalars.joules_per_byte
        read = byte
    token = cost.flops_per_token * flop
    return Marginals(
        prefill_joules=token,
        decode_joules=token,
        context_joules=cost.kv_bytes_per_token * byte,
        step_joules=cost.weight_bytes * byte,
        byte_joules=read if cost.mixes else 0.0,
    )


def held_factor(hardware: Hardware, idle_watts: float, scalars: Scalars, held_watts: float | None) -> float | None:
    """How many times its own joules work costs on a board held at that power, idle power included; None where none is.

    320 W with 110 W idle: 320/210. At 420 W it would be 1.355, which is not HELD_FROM times a byte's 1.243: None.
    """
    if held_watts is None or held_watts <= idle_watts:
        return None
    factor = held_watts / (held_watts - idle_watts)
    flop, byte = _by_the_roofline(hardware, idle_watts, scalars)
    tells = (
        factor * scalars.joules_per_flop >= HELD_FROM * flop and factor * scalars.joules_per_byte >= HELD_FROM * byte
    )
    return factor if tells else None


def _by_the_roofline(hardware: Hardware, idle_watts: float, scalars: Scalars) -> tuple[float, float]:
    """Joules of a FLOP and of a byte, idle power of their time included."""
    return (
        scalars.joules_per_flop + idle_watts / (hardware.peak_flops_per_second * FLOP_EFFICIENCY),
        scalars.joules_per_byte + idle_watts / (hardware.peak_bytes_per_second * BYTE_EFFICIENCY),
    )


def prefill_seconds(cost: TokenCost, hardware: Hardware, tokens: float, devices: int) -> float:
    """How long the prefill takes at the board's usual speed: the stand-in where an event has no first_token."""
    return cost.flops_per_token * tokens / (hardware.peak_flops_per_second * FLOP_EFFICIENCY * max(devices, 1))
