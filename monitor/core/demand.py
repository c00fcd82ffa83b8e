"""What the requests of one host ask of a device in a window, as columns. In: their columns. Out: `Requests`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
from monitor.core.usage_columns import Index, UsageColumns, told_or_nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """All requests of a host that touch a window, in the fixed order (start, end, identity). Length n each.

    Times are seconds from the window's start; `first` is NaN where no event told it; tokens not told are 0.
    `active` is when an engine began. `weight` is in (0, 1], as which part of a request it is there.
    """

    begin: UnixSeconds
    usages: UsageColumns
    active: Column
    first: Column
    end: Column
    fresh_tokens: Column
    context_tokens: Column
    output_tokens: Column
    weight: Column
    unknown: Index
    """The places of those of which nobody knows the device."""

    def on(self, device: Device) -> Index:
        """Which of them work on the device: a GPU's by placement; everything else on the host serves all of them."""
        return self.on_each([device])[0]

    def on_each(self, devices: Sequence[Device]) -> list[Index]:
        """`on` of each of these devices."""
        routes_on: dict[str, list[int]] = {}
        served = np.ones(len(self.usages.routes), dtype=np.bool_)
        for place, route in enumerate(self.usages.routes):
            served[place] = route.devices != ()
            for part in route.devices or ():
                routes_on.setdefault(part, []).append(place)
        found = []
        for device in devices:
            chosen = served
            if device.kind == "gpu":
                chosen = np.zeros(len(served), dtype=np.bool_)
                for part in (device.id, *device.instances):
                    chosen[routes_on.get(part, [])] = True
            found.append(chosen[self.usages.route].nonzero()[0])
        return found

    def elsewhere(self) -> tuple[Column, Column]:
        """Starts and ends of those of which nobody knows the device."""
        return self.active[self.unknown], self.end[self.unknown]


def demand_of(usages: UsageColumns, window_begin: UnixSeconds) -> Demand:
    """What these ask, which must be in their fixed order."""
    context = told_or_nothing(usages.input_tokens)
    return Demand(
        begin=window_begin,
        usages=usages,
        active=usages.active_start - window_begin,
        first=usages.first_token - window_begin,
        end=usages.end - window_begin,
        fresh_tokens=np.maximum(context - told_or_nothing(usages.cached_input_tokens), 0.0),
        context_tokens=context,
        output_tokens=told_or_nothing(usages.output_tokens),
        weight=usages.weight,
        unknown=usages.where(lambda route: route.devices is None).nonzero()[0],
    )


class Ask(NamedTuple):
    """A device of which `requests_on_each` tells what the `chosen` of a host's requests do on it.

    `active` is when an engine on it began with each of the chosen. `tokens_per_step`: of each model how many tokens a
    decoding request makes while its context is read once; of "" for all, 1 where nothing is told. `held_watts`: the
    power at which a limit holds the device. `counters` are those of the engines on it, each of which has steps of its
    own (stepping.py).
    """

    device: Device
    chosen: Index
    active: Column
    idle_watts: float | None
    scalars: Scalars = PRIOR
    tokens_per_step: Mapping[str, float] = MappingProxyType({})
    held_watts: float | None = None
    counters: Sequence[EngineReading] = ()

    @property
    def hardware(self) -> Hardware:
        """The facts of its type, as far as they are known."""
        return hardware_of(self.device.hardware) or UNKNOWN_GPU

    @property
    def watts(self) -> float:
        """Idle power, the type's where the device's own is not known."""
        return self.hardware.idle_watts if self.idle_watts is None else self.idle_watts


def requests_on_each(
    demands: Sequence[Demand], asks: Sequence[Ask], profile: HostProfile, method: Method = METHODS[DEFAULT_METHOD]
) -> list[Requests]:
    """What is asked of each device, priced by the method from the scalars of its type and model facts.

    Requests whose work has a price in `scalars.units` are priced by that, and not by tokens. A request on n devices (a
    tensor-parallel group) brings a part of n to each. On a CPU, DRAM or node there is no marginal energy: what they
    share, they share equally. All requests stand in one column; what a device is told does not depend on the others.
    `demands` has one for each of `asks`: of the same requests, but each has what its device was asked (phased.py).
    """
    usages = demands[0].usages

    def of_each(column: Callable[[Demand], Column]) -> Column:
        return np.concatenate([column(demand)[ask.chosen] for demand, ask in zip(demands, asks, strict=True)])

    exponents = [ask.scalars.routing_exponent if method.learns else 1.0 for ask in asks]
    costs_by = {exponent: _costs(usages, profile, exponent) for exponent in set(exponents)}
    costs = [costs_by[exponent] for exponent in exponents]
    prices = [
        _prices(ask, its_costs, method) if ask.device.kind == "gpu" else {}
        for ask, its_costs in zip(asks, costs, strict=True)
    ]
    counts = [len(ask.chosen) for ask in asks]
    bounds = list(pairwise(accumulate(counts, initial=0)))
    route, weight = usages.route[np.concatenate([ask.chosen for ask in asks])], of_each(lambda each: each.weight)
    # Each device has routes of its own in the tables below: a request's place there is that of its device and route.
    place = route + np.repeat(np.arange(len(asks)) * len(usages.routes), counts)
    start, end = np.concatenate([ask.active for ask in asks]), of_each(lambda each: each.end)
    per_prefill, per_decode, per_context = _per_token(demands, prices).take(place, axis=1)
    at_once: Column | float = 1.0
    if any(ask.tokens_per_step for ask in asks):
        at_once = np.concatenate([_made_at_once(usages, ask.tokens_per_step) for ask in asks])[place]
    per_context = per_context / at_once
    made, fresh = of_each(lambda each: each.output_tokens), of_each(lambda each: each.fresh_tokens)
    prefill = fresh * per_prefill
    decode = made * per_decode + of_each(lambda each: each.context_tokens) * made * per_context
    growing = made * made / 2.0 * per_context
    first = of_each(lambda each: each.first)
    if np.isnan(first).any():
        usual = [
            _usual_prefill(demand.usages, its_costs, ask)
            for demand, its_costs, ask in zip(demands, costs, asks, strict=True)
        ]
        guess = np.where(made > 0, start + np.concatenate(usual)[place] * fresh, end)
        first = np.where(np.isnan(first), guess, first)
    first = np.clip(first, start, end)
    if any(cost.mixes for its_costs in costs_by.values() for cost in its_costs.values()):
        prefill = prefill + np.concatenate(
            [
                experts_of_prompts(
                    demand.usages.routes,
                    route[begin:stop],
                    (start[begin:stop], first[begin:stop], end[begin:stop]),
                    weight=weight[begin:stop],
                    fresh_tokens=fresh[begin:stop],
                    prices=priced_on,
                    costs=its_costs,
                )
                for demand, priced_on, its_costs, (begin, stop) in zip(demands, prices, costs, bounds, strict=True)
            ]
        )
    if any(ask.scalars.units for ask in asks):
        per_unit = [_per_unit(demand.usages, ask) for demand, ask in zip(demands, asks, strict=True)]
        work = of_each(lambda each: each.usages.work_amount) * np.concatenate(per_unit)[place]
        priced = ~np.isnan(work)
        prefill, first = np.where(priced, work, prefill), np.where(priced, end, first)
        decode, growing = np.where(priced, 0.0, decode), np.where(priced, 0.0, growing)
    no_prefill, no_decode = first <= start, end <= first
    prefill_joules = np.where(no_prefill, 0.0, prefill + np.where(no_decode, decode + growing, 0.0))
    decode_joules = np.where(no_decode, 0.0, decode + np.where(no_prefill, prefill, 0.0))
    growing_joules = np.where(no_decode, 0.0, growing)
    steps_made = made / at_once
    found = []
    for demand, ask, priced_on, its_costs, (begin, stop) in zip(demands, asks, prices, costs, bounds, strict=True):
        mine = slice(begin, stop)
        found.append(
            Requests(
                start=start[mine],
                first=first[mine],
                end=end[mine],
                weight=weight[mine],
                prefill_joules=prefill_joules[mine],
                decode_joules=decode_joules[mine],
                growing_joules=growing_joules[mine],
                steps=steps_on(
                    demand.usages.routes,
                    route[mine],
                    prefill_seconds=first[mine] - start[mine],
                    decode_seconds=end[mine] - first[mine],
                    fresh_tokens=fresh[mine],
                    decode_steps=steps_made[mine],
                    prices=priced_on,
                    costs=its_costs,
                    counters=ask.counters,
                    begin=demand.begin,
                )
                if len(priced_on) > 1
                else None,
            )
        )
    return found


def _prices(ask: Ask, costs: Mapping[str, TokenCost], method: Method) -> dict[str, Marginals]:
    """Of each model on a GPU."""
    hardware, watts = ask.hardware, ask.watts
    return {model: method.price(cost, hardware, watts, ask.scalars, ask.held_watts) for model, cost in costs.items()}


def _made_at_once(usages: UsageColumns, tokens_per_step: Mapping[str, float]) -> Column:
    every = tokens_per_step.get("", 1.0)
    return np.array([tokens_per_step.get(route.model, every) for route in usages.routes], dtype=np.float64)


def _per_unit(usages: UsageColumns, ask: Ask) -> Column:
    """Joules of a unit of each route's work on one of its devices, NaN for work that has no price."""
    factor = held_factor(ask.hardware, ask.watts, ask.scalars, ask.held_watts)
    prices = {(each.model, each.unit): each.joules(ask.watts, factor) for each in ask.scalars.units}
    each = [
        prices.get((route.model, route.work_unit or ""), np.nan) / (len(route.devices or ()) or 1)
        for route in usages.routes
    ]
    return np.array(each, dtype=np.float64)


def _per_token(demands: Sequence[Demand], prices: Sequence[Mapping[str, Marginals]]) -> NDArray[np.float64]:
    """Joules of a token prefilled, a token made, and a token of context read for one made, on one of its devices: three
    rows, each with the routes of one device after those of the other.
    """
    routes = demands[0].usages.routes
    models = list(dict.fromkeys(route.model for route in routes))
    number = {model: place for place, model in enumerate(models)}
    model = np.array([number[route.model] for route in routes], dtype=np.intp)
    alike = all(demand is demands[0] for demand in demands)
    part = np.array(
        [
            [1.0 / (len(route.devices or ()) or 1) for route in demand.usages.routes]
            for demand in (demands[:1] if alike else demands)
        ],
        dtype=np.float64,
    )
    free = Marginals(prefill_joules=0.0, decode_joules=0.0, context_joules=0.0)
    told = [of_model.get(each, free) for of_model in prices for each in models]
    joules = np.array(
        [
            [each.prefill_joules for each in told],
            [each.decode_joules for each in told],
            [each.context_joules for each in told],
        ],
        dtype=np.float64,
    ).reshape(3, len(prices), len(models))
    return (joules[:, :, model] * part).reshape(3, -1)


def _usual_prefill(usages: UsageColumns, costs: Mapping[str, TokenCost], ask: Ask) -> Column:
    """Seconds of a token's prefill at the board's usual speed, for each route: what passes until a first token that was
    not told; a request that makes none has none.
    """
    known = costs if ask.device.kind == "gpu" else {}
    usual = [
        prefill_seconds(known.get(route.model, UNKNOWN_MODEL), ask.hardware, 1.0, len(route.devices or ()))
        for route in usages.routes
    ]
    return np.array(usual, dtype=np.float64)


def _costs(usages: UsageColumns, profile: HostProfile, routing_exponent: float) -> dict[str, TokenCost]:
    facts = {model.name: model for model in profile.models}
    return {
        name: token_cost(name, facts.get(name), routing_exponent)
        for name in sorted({route.model for route in usages.routes})
    }
