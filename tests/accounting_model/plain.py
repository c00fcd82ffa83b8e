"""The arithmetic of one window at its plainest, for schedules by the thousand: joules shared by weight.

What the model tries is which records an account is made of, and what becomes of its rows; the virtual-energy integral
takes 0.4 ms for a device and says nothing about that. Every record and every neighbour changes some row here too.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import fsum
from typing import Any
from unittest.mock import patch

import numpy as np

from collectors.readings import HostProfile
from monitor.core import book
from monitor.core.account import Account, RequestsAs
from monitor.core.points import ENERGY, METER, REQUEST_ENERGY, USAGE, Row
from monitor.core.readings import Nearby, Told, disjoint, energy_within
from monitor.core.shares import COLUMNS, Shares
from monitor.core.usage import Usage
from monitor.core.usage_columns import UsageColumns
from monitor.core.usage_order import in_order


@contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Books are made by the plain account as long as this lasts."""
    with patch.object(book, "account", plain_account):
        yield


def plain_account(
    host: str,
    start: float,
    end: float,
    *,
    readings: Iterable[Told],
    usages: UsageColumns,
    nearby: Nearby,
    revision: int,
    requests: RequestsAs = "rows",
    **_others: Any,
) -> Account:
    """Meter, attributed and idle rows, requests that ended, and each request's part; pure, as the real one is."""
    columns = in_order(usages)
    ordered = list(columns.usages())
    by_device: dict[str, list[Told]] = {}
    for told in readings:
        by_device.setdefault(told.reading.device, []).append(told)
    weights: dict[tuple[str, str], float] = {}
    for usage in ordered:
        key = usage.model, usage.team
        weights[key] = weights.get(key, 0.0) + usage.weight
    total, whole = fsum(weights.values()), 0.0
    rows: list[Row] = []
    overlaps: list[Told] = []
    for device in sorted(by_device):
        kept, left_out = disjoint(by_device[device])
        overlaps += left_out
        profile = kept[-1].profile
        energy = energy_within(kept, start, end)
        rest = energy - _of_children(profile, device, kept, nearby)
        whole += rest
        found = profile.device(device)
        tags = host, device, found.kind if found else "gpu"
        rows.append(Row(METER.name, start, tags, (energy, rest, 0.0, 0.0, float(len(kept)), "", revision)))
        zeros = (0.0,) * (len(ENERGY.sums) - 2)
        for (model, team), weight in sorted(weights.items()):
            part = rest * weight / total
            energy_tags = (*tags, "attributed", model, team, "", "")
            rows.append(Row(ENERGY.name, start, energy_tags, (part, weight, *zeros, "", "", "", revision)))
        idle = 0.0 if weights else rest
        rows.append(Row(ENERGY.name, start, (*tags, "idle", "", "", "", ""), (idle, 0.0, *zeros, "", "", "", revision)))
    rows += _usage_rows(host, start, end, ordered, revision)
    measured = bool(by_device)
    shares = _shares(columns, whole, total, measured=measured)
    if requests == "rows":
        rows += [
            _request_row(host, start, usage, share, revision)
            for usage, share in zip(ordered, shares.joules.T.tolist(), strict=True)
        ]
    return Account(rows, overlaps, shares if requests == "shares" else None)


def _shares(usages: UsageColumns, whole: float, total: float, *, measured: bool) -> Shares:
    count = len(usages)
    joules = np.zeros((COLUMNS, count))
    joules[0] = whole * usages.weight / total if count else 0.0
    joules[1] = usages.weight
    return Shares(
        usages, joules, np.full(count, np.nan), np.full(count, "", dtype=np.object_), np.full(count, measured)
    )


def _request_row(host: str, start: float, usage: Usage, joules: list[float], revision: int) -> Row:
    request = host, usage.namespace, usage.request_id, str(usage.attempt), usage.model, usage.team, "", ""
    facts = (usage.start, None, usage.end, usage.input_tokens, None, usage.output_tokens, None, None)
    sums = (*joules, None)
    return Row(REQUEST_ENERGY.name, start, request, (*sums, *facts, usage.weight, usage.status, "", revision))


def _of_children(profile: HostProfile, device: str, kept: list[Told], nearby: Nearby) -> float:
    children = [each.id for each in profile.devices if each.parent == device]
    return fsum(
        energy_within(nearby(child, told.reading.start, told.reading.end), told.reading.start, told.reading.end)
        for child in children
        for told in kept
    )


def _usage_rows(host: str, start: float, end: float, usages: list[Usage], revision: int) -> list[Row]:
    ended: dict[tuple[str, str], list[Usage]] = {}
    for usage in usages:
        if start <= usage.end < end:
            ended.setdefault((usage.model, usage.team), []).append(usage)
    return [
        Row(
            USAGE.name,
            start,
            (host, *key, "", "ok", ""),
            (
                fsum(each.weight for each in some),
                fsum(each.input_tokens or 0 for each in some),
                *(0.0 for _ in USAGE.sums[2:]),
                revision,
            ),
        )
        for key, some in sorted(ended.items())
    ]
