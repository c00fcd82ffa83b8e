"""What a finished request used on one host, summed over the windows it touched. Pure."""

from collections.abc import Sequence
from math import fsum

import msgspec

from collectors.requests.event import Work
from collectors.units import UnixSeconds
from monitor.core.account import Share
from monitor.core.points import REQUEST_ENERGY, Row
from monitor.core.usage import Usage, canonical_labels


class RequestEnergy(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request's entry. It is (namespace, request_id, attempt, start, host); of several the highest revision counts.

    Joules are None where no window of it was measured on its devices; `measured_windows` of its `windows` were.
    `revision` is 0 for the first entry, made when the request's last window was final, else the mark (unix seconds)
    that made or restated it. A request with `weight` below 1 may have run on other hosts as well.
    """

    namespace: str
    request_id: str
    attempt: int
    host: str
    model: str
    team: str
    deployment: str
    labels: dict[str, str]
    status: str
    weight: float
    start: UnixSeconds
    first_token: UnixSeconds | None
    end: UnixSeconds
    input_tokens: int | None
    cached_input_tokens: int | None
    output_tokens: int | None
    work: Work | None
    energy_joules: float | None
    marginal_joules: float | None
    metered_joules: float | None
    recovered_joules: float | None
    exact_joules: float | None
    location_grams: float | None
    measured_ratio: float | None
    exact_ratio: float | None
    factor: str
    windows: int
    measured_windows: int
    revision: int


def request_energy(usage: Usage, shares: Sequence[Share], windows: int, revision: int) -> RequestEnergy:
    """The entry of a request that touched so many windows, from its share in each that is accounted, in their order.

    3 J in one window and 4 J in the next are 7 J.
    """
    measured = [share for share in shares if share.measured]
    energy, marginal, metered, recovered, exact = _joules(measured)
    return RequestEnergy(
        namespace=usage.namespace,
        request_id=usage.request_id,
        attempt=usage.attempt,
        host=usage.host,
        model=usage.model,
        team=usage.team,
        deployment=usage.deployment,
        labels=usage.labels,
        status=usage.status,
        weight=usage.weight,
        start=usage.start,
        first_token=usage.first_token,
        end=usage.end,
        input_tokens=usage.input_tokens,
        cached_input_tokens=usage.cached_input_tokens,
        output_tokens=usage.output_tokens,
        work=usage.work,
        energy_joules=energy,
        marginal_joules=marginal,
        metered_joules=metered,
        recovered_joules=recovered,
        exact_joules=exact,
        location_grams=_grams(measured),
        measured_ratio=metered / energy if energy and metered is not None else None,
        exact_ratio=exact / energy if energy and exact is not None else None,
        factor=measured[-1].factor if measured else "",
        windows=windows,
        measured_windows=len(measured),
        revision=revision,
    )


def _joules(measured: Sequence[Share]) -> Sequence[float | None]:
    """Energy, marginal, metered, recovered, exact."""
    if len(measured) == 1:  # most requests of most fleets
        return measured[0][1:6]
    if not measured:
        return (None,) * 5
    return [fsum(column) for column in zip(*(share[1:6] for share in measured), strict=True)]


def _grams(measured: Sequence[Share]) -> float | None:
    grams = [share.location_grams for share in measured if share.location_grams is not None]
    return fsum(grams) if measured and len(grams) == len(measured) else None


def request_row(entry: RequestEnergy) -> Row:
    """The entry as one row, at the request's end."""
    key = (entry.model, entry.team, entry.deployment, canonical_labels(entry.labels))
    return Row(
        REQUEST_ENERGY.name,
        entry.end,
        (entry.host, entry.namespace, entry.request_id, str(entry.attempt), *key),
        (
            entry.energy_joules,
            entry.marginal_joules,
            entry.metered_joules,
            entry.recovered_joules,
            entry.exact_joules,
            entry.location_grams,
            entry.start,
            entry.first_token,
            entry.end,
            entry.input_tokens,
            entry.cached_input_tokens,
            entry.output_tokens,
            entry.work.unit if entry.work else None,
            entry.work.amount if entry.work else None,
            entry.weight,
            entry.status,
            entry.factor,
            entry.revision,
        ),
    )
