"""What the requests of one host ask of a device in a window, as columns. In: their columns. Out: `Requests`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from collectors.readings import Device, EngineReading, HostProfile
from collectors.units import UnixSeconds
from monitor.core.attribution.hardware import UNKNOWN_GPU, Hardware, hardware_of
from monitor.core.attribution.methods import DEFAULT_METHOD, METHODS, Method
from monitor.core.attribution.models import UNKNOWN_MODEL, TokenCost, token_cost
from monitor.core.attribution.pieces import Column
from monitor.core.attribution.priors import PRIOR, Marginals, Scalars, held_factor, prefill_seconds
from monitor.core.attribution.requests import Requests
from monitor.core.prompt_experts import experts_of_prompts
from monitor.core.stepping import steps_on
from monitor.core.usage_columns import Index, Route, UsageColumns


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All requests of a host that touch a window, in the fixed order (start, end, identity). Length n each.

    Times are seconds from the window's start; `first` is NaN where no event told it; tokens not told are 0.
    `active` is when an engine began.
    """

    begin: UnixSeconds
    usages: UsageColumns
    active: Column
    first: Column
    end: Column
    fresh_tokens: Column
    context_tokens: Column
    output_tokens: Column
    unknown: Index
    """The places of those of which nobody knows the device."""

    def on(self, device: Device) -> Index:
        """Which of them work on the device: a GPU's by placement; everything else on the host serves all of them."""
        if device.kind != "gpu":
            return self.usages.where(lambda route: route.devices != ()).nonzero()[0]
        parts = {device.id, *device.instances}
        return self.usages.where(lambda route: not parts.isdisjoint(route.devices or ())).nonzero()[0]

    def elsewhere(self) -> tuple[Column, Column]:
        """Starts and ends of those of which nobody knows the device."""
        return self.active[self.unknown], self.end[self.unknown]


def demand_of(usages: UsageColumns, window_begin: UnixSeconds) -> Demand:
    """What these ask, which must be in their fixed order."""
    context = np.nan_to_num(usages.input_tokens, nan=0.0)
    return Demand(
        begin=window_begin,
        usages=usages,
        active=usages.active_start - window_begin,
        first=usages.first_token - window_begin,
        end=usages.end - window_begin,
        fresh_tokens=np.maximum(context - np.nan_to_num(usages.cached_input_tokens, nan=0.0), 0.0),
        context_tokens=context,
        output_tokens=np.nan_to_num(usages.output_tokens, nan=0.0),
        unknown=usages.where(lambda route: route.devices is None).nonzero()[0],
    )


def requests_on(
    demand: Demand,
    chosen: Index,
    device: Device,
    profile: HostProfile,
    *,
    idle_watts: float | None,
    scalars: Scalars = PRIOR,
    method: Method = METHODS[DEFAULT_METHOD],
    tokens_per_step: Mapping[str, float] = MappingProxyType({}),
    held_watts: float | None = None,
    counters: Sequence[EngineReading] = (),
) -> Requests:
    """What the chosen requests do on the device, priced by the method from the scalars of its type and model facts.

    Requests whose work has a price in `scalars.units` are priced by that, and not by tokens. `tokens_per_step`: of each
    model how many tokens a decoding request makes while its context is read once; of "" for all, 1 where nothing is
    told. `held_watts`: the power at which a limit holds the device. `counters` are those of the engines on it, each of
    which has steps of its own (stepping.py). A request on n devices (a tensor-parallel group) brings a part of n to
    each. On a CPU, DRAM or node there is no marginal energy: what they share, they share equally.
    """
    start, end = demand.active[chosen], demand.end[chosen]
    usages = demand.usages
    hardware = hardware_of(device.hardware) or UNKNOWN_GPU
    watts = hardware.idle_watts if idle_watts is None else idle_watts
    routing_exponent = scalars.routing_exponent if method.learns else 1.0
    costs = _costs(usages, profile, routing_exponent) if device.kind == "gpu" else {}
    prices = {model: method.price(cost, hardware, watts, scalars, held_watts) for model, cost in costs.items()}
    free = Marginals(prefill_joules=0.0, decode_joules=0.0, context_joules=0.0)
    each = [_per_token(prices.get(route.model, free), route) for route in usages.routes]
    per_prefill, per_decode, per_context = np.array(each, dtype=np.float64).reshape(-1, 3)[usages.route[chosen]].T
    at_once = _made_at_once(usages, tokens_per_step)[usages.route[chosen]] if tokens_per_step else 1.0
    per_context = per_context / at_once
    made = demand.output_tokens[chosen]
    prefill = demand.fresh_tokens[chosen] * per_prefill
    decode = made * per_decode + demand.context_tokens[chosen] * made * per_context
    growing = made * made / 2.0 * per_context
    first = _first_tokens(demand, chosen, costs, hardware)
    prefill = prefill + experts_of_prompts(
        usages.routes,
        usages.route[chosen],
        (start, first, end),
        fresh_tokens=demand.fresh_tokens[chosen],
        prices=prices,
        costs=costs,
    )
    if scalars.units:
        factor = held_factor(hardware, watts, scalars, held_watts)
        by_unit = {(each.model, each.unit): each.joules(watts, factor) for each in scalars.units}
        work = _unit_joules(usages, chosen, by_unit)
        priced = ~np.isnan(work)
        prefill, first = np.where(priced, work, prefill), np.where(priced, end, first)
        decode, growing = np.where(priced, 0.0, decode), np.where(priced, 0.0, growing)
    no_prefill, no_decode = first <= start, end <= first
    return Requests(
        start=start,
        first=first,
        end=end,
        weight=usages.weight[chosen],
        prefill_joules=np.where(no_prefill, 0.0, prefill + np.where(no_decode, decode + growing, 0.0)),
        decode_joules=np.where(no_decode, 0.0, decode + np.where(no_prefill, prefill, 0.0)),
        growing_joules=np.where(no_decode, 0.0, growing),
        steps=steps_on(
            usages.routes,
            usages.route[chosen],
            prefill_seconds=first - start,
            decode_seconds=end - first,
            fresh_tokens=demand.fresh_tokens[chosen],
            decode_steps=made / at_once,
            prices=prices,
            costs=costs,
            counters=counters,
            begin=demand.begin,
        ),
    )


def _made_at_once(usages: UsageColumns, tokens_per_step: Mapping[str, float]) -> Column:
    every = tokens_per_step.get("", 1.0)
    return np.array([tokens_per_step.get(route.model, every) for route in usages.routes], dtype=np.float64)


def _unit_joules(usages: UsageColumns, chosen: Index, prices: Mapping[tuple[str, str], float]) -> Column:
    """Joules of their work on one of its devices, NaN for requests whose work has no price."""
    each = [
        prices.get((route.model, route.work_unit or ""), np.nan) / (len(route.devices or ()) or 1)
        for route in usages.routes
    ]
    return usages.work_amount[chosen] * np.array(each, dtype=np.float64)[usages.route[chosen]]


def _per_token(price: Marginals, route: Route) -> tuple[float, float, float]:
    """Joules of a token prefilled, a token made, and a token of context read for one made, on one of its devices."""
    part = 1.0 / (len(route.devices or ()) or 1)
    return price.prefill_joules * part, price.decode_joules * part, price.context_joules * part


def _first_tokens(demand: Demand, chosen: Index, costs: dict[str, TokenCost], hardware: Hardware) -> Column:
    """When decoding began: as told, else after a prefill at the board's usual speed, else at the end."""
    start, end = demand.active[chosen], demand.end[chosen]
    told = demand.first[chosen]
    if not np.isnan(told).any():
        return np.clip(told, start, end)
    usual = [
        prefill_seconds(costs.get(route.model, UNKNOWN_MODEL), hardware, 1.0, len(route.devices or ()))
        for route in demand.usages.routes
    ]
    prefill = np.array(usual, dtype=np.float64)[demand.usages.route[chosen]] * demand.fresh_tokens[chosen]
    guess = np.where(demand.output_tokens[chosen] > 0, start + prefill, end)
    return np.clip(np.where(np.isnan(told), guess, told), start, end)


def _costs(usages: UsageColumns, profile: HostProfile, routing_exponent: float) -> dict[str, TokenCost]:
    facts = {model.name: model for model in profile.models}
    return {
        name: token_cost(name, facts.get(name), routing_exponent)
        for name in sorted({route.model for route in usages.routes})
    }
