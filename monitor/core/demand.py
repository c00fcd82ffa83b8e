"""What the requests of one host ask of a device in a window, as columns. In: Usage records. Out: `Requests`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collectors.readings import Device, HostProfile
from collectors.units import UnixSeconds
from monitor.core.attribution.hardware import UNKNOWN_GPU, Hardware, hardware_of
from monitor.core.attribution.models import UNKNOWN_MODEL, TokenCost, token_cost
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.priors import Marginals, marginals, prefill_seconds
from monitor.core.attribution.virtual_energy import Requests
from monitor.core.usage import Usage

Index = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All requests of a host that touch a window, in the fixed order (start, end, identity). Length n each.

    Times are seconds from the window's start; `first` is NaN where no event told it; tokens not told are 0.
    `active` is when an engine began.
    """

    usages: Sequence[Usage]
    active: Column
    first: Column
    end: Column
    weight: Column
    fresh_tokens: Column
    context_tokens: Column
    output_tokens: Column
    placed: Mapping[str, Sequence[int]]
    """Device id to the places of those that are on it, in order."""
    unknown: Index
    """The places of those of which nobody knows the device."""

    def on(self, device: Device) -> Index:
        """Which of them work on the device: a GPU's by placement; everything else on the host serves all of them."""
        if device.kind == "gpu":
            parts = [self.placed.get(each, ()) for each in dict.fromkeys((device.id, *device.instances))]
            chosen = parts[0] if len(parts) == 1 else sorted({i for part in parts for i in part})
        else:
            chosen = [i for i, usage in enumerate(self.usages) if usage.devices != ()]
        return np.array(chosen, dtype=np.intp)

    def elsewhere(self) -> tuple[Column, Column]:
        """Starts and ends of those of which nobody knows the device."""
        return self.active[self.unknown], self.end[self.unknown]


def demand_of(usages: Sequence[Usage], window_begin: UnixSeconds) -> Demand:
    """Columns of these usages, which must be in their fixed order."""

    def column(values: Sequence[float]) -> Column:
        return np.array(values, dtype=np.float64)

    nan = float("nan")
    placed: dict[str, list[int]] = {}
    for i, usage in enumerate(usages):
        for device in dict.fromkeys(usage.devices) if usage.devices else ():
            placed.setdefault(device, []).append(i)
    return Demand(
        usages=usages,
        active=column([usage.active_start for usage in usages]) - window_begin,
        first=column([nan if usage.first_token is None else usage.first_token for usage in usages]) - window_begin,
        end=column([usage.end for usage in usages]) - window_begin,
        weight=column([usage.weight for usage in usages]),
        fresh_tokens=column([max((usage.input_tokens or 0) - (usage.cached_input_tokens or 0), 0) for usage in usages]),
        context_tokens=column([usage.input_tokens or 0 for usage in usages]),
        output_tokens=column([usage.output_tokens or 0 for usage in usages]),
        placed=placed,
        unknown=np.array([i for i, usage in enumerate(usages) if usage.devices is None], dtype=np.intp),
    )


def requests_on(
    demand: Demand, chosen: Index, device: Device, profile: HostProfile, idle_watts: float | None
) -> Requests:
    """What the chosen requests do on the device, priced by the priors of its type and their models' facts.

    A request on n devices (a tensor-parallel group) brings a part of n to each. On a CPU, DRAM or node there is no
    marginal energy: what they share, they share equally.
    """
    start, end = demand.active[chosen], demand.end[chosen]
    usages = [demand.usages[i] for i in chosen]
    hardware = hardware_of(device.hardware) or UNKNOWN_GPU
    watts = hardware.idle_watts if idle_watts is None else idle_watts
    costs = _costs(usages, profile) if device.kind == "gpu" else {}
    prices = {model: marginals(cost, hardware, watts) for model, cost in costs.items()}
    free = Marginals(prefill_joules=0.0, decode_joules=0.0, context_joules=0.0)
    price = [prices.get(usage.model, free) for usage in usages]
    part = 1.0 / np.array([len(usage.devices or ()) or 1 for usage in usages], dtype=np.float64)
    per_prefill = np.array([each.prefill_joules for each in price], dtype=np.float64) * part
    per_decode = np.array([each.decode_joules for each in price], dtype=np.float64) * part
    per_context = np.array([each.context_joules for each in price], dtype=np.float64) * part
    made = demand.output_tokens[chosen]
    prefill = demand.fresh_tokens[chosen] * per_prefill
    decode = made * per_decode + demand.context_tokens[chosen] * made * per_context
    growing = made * made / 2.0 * per_context
    first = _first_tokens(demand, chosen, usages, costs, hardware)
    no_prefill, no_decode = first <= start, end <= first
    return Requests(
        start=start,
        first=first,
        end=end,
        weight=demand.weight[chosen],
        prefill_joules=np.where(no_prefill, 0.0, prefill + np.where(no_decode, decode + growing, 0.0)),
        decode_joules=np.where(no_decode, 0.0, decode + np.where(no_prefill, prefill, 0.0)),
        growing_joules=np.where(no_decode, 0.0, growing),
    )


def _first_tokens(
    demand: Demand, chosen: Index, usages: Sequence[Usage], costs: dict[str, TokenCost], hardware: Hardware
) -> Column:
    """When decoding began: as told, else after a prefill at the board's usual speed, else at the end."""
    start, end = demand.active[chosen], demand.end[chosen]
    told = demand.first[chosen]
    if not np.isnan(told).any():  # as usual; the guess is a loop over requests
        return np.clip(told, start, end)
    fresh = demand.fresh_tokens[chosen]
    usual = np.array(
        [
            prefill_seconds(costs.get(usage.model, UNKNOWN_MODEL), hardware, tokens, len(usage.devices or ()))
            for usage, tokens in zip(usages, fresh.tolist(), strict=True)
        ],
        dtype=np.float64,
    )
    guess = np.where(demand.output_tokens[chosen] > 0, start + usual, end)
    return np.clip(np.where(np.isnan(told), guess, told), start, end)


def _costs(usages: Sequence[Usage], profile: HostProfile) -> dict[str, TokenCost]:
    facts = {model.name: model for model in profile.models}
    return {name: token_cost(name, facts.get(name)) for name in sorted({usage.model for usage in usages})}
