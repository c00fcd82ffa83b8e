"""What an alert rule measures: the books of a span of windows, as one figure per team, model and host.

A figure is None where too little was measured to tell it; a measured nothing is 0. The books are asked through the
gate, provisional windows included.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from collectors.units import SECONDS_PER_HOUR, UnixSeconds
from monitor.alerts.coverage import DeviceKey, Seen, expected_seconds, seen
from monitor.config.output_sections import Alert
from monitor.core.allocation_lines import AllocationLine
from monitor.core.points import ATTRIBUTED
from monitor.core.questions import AllocationQuery, MeterWindow, Principal, WindowBooks, WindowsQuery
from monitor.core.window import window_at, window_start
from monitor.query import Query, every_meter, every_window, whole_allocation

LEAST_COVERED: Final = 0.9
"""Where less of the time was measured than this, or less of the energy has a factor, no figure is told."""

_LINE_MEASURES: Final = ("emissions_grams_per_hour", "joules_per_output_token")
_PART_OF: Final = {"idle_ratio": "idle_joules", "unattributed_ratio": "unattributed_joules"}
_ACCOUNTS: Final = ("attributed_joules", "idle_joules", "unattributed_joules")

Instance = tuple[str, ...]
"""Values of a rule's `per`, in its order; () is the whole fleet."""


def windows_over(rule: Alert, window_seconds: float) -> int:
    """How many windows a figure is made of: `over`, rounded up to whole windows."""
    return math.ceil(rule.over_seconds / window_seconds)


class SpanBooks:
    """The windows that start in [start, end), each part read once for all `rules`. `end` and `start` are on the grid.

    Raises what the gate raises.
    """

    def __init__(
        self,
        query: Query,
        principal: Principal,
        rules: Sequence[Alert],
        devices: Mapping[DeviceKey, Seen],
        *,
        start: UnixSeconds,
        end: UnixSeconds,
        window_seconds: float,
    ) -> None:
        self._query, self._principal = query, principal
        self._start, self._end, self._window_seconds = start, end, window_seconds
        meters = list(every_meter(query, principal, WindowsQuery(start=start, end=end)))
        self.devices = seen(dict(devices), meters)
        self._devices_of: defaultdict[str, list[DeviceKey]] = defaultdict(list)
        for key in sorted(self.devices):
            self._devices_of[key[0]].append(key)
        self._meters: dict[tuple[int, DeviceKey], MeterWindow] = {
            (window_at(meter.time, window_seconds), (meter.host, meter.device, meter.kind)): meter
            for meter in meters
            if not meter.parent
        }
        self._dimensions = tuple(sorted({name for rule in rules if _wants_lines(rule) for name in rule.per}))
        self._lines: list[tuple[int, AllocationLine]] | None = None
        self._lines_per: dict[tuple[str, ...], dict[tuple[int, Instance], list[AllocationLine]]] = {}
        self._hosts: dict[tuple[int, str], WindowBooks] | None = None

    def instances(self, rule: Alert) -> set[Instance]:
        """Everyone of whom the rule may tell a figure."""
        if not rule.per:
            return {()}
        if rule.per == ("host",):
            return {(host,) for host in self._devices_of}
        places = self._lines_by(rule.per).items()
        return {key for (_, key), lines in places if any(line.account == ATTRIBUTED for line in lines)}

    def value(self, rule: Alert, instance: Instance, until: UnixSeconds) -> float | None:
        """The figure over the rule's span up to `until`, None where it is not known."""
        last = window_at(until, self._window_seconds)
        windows = range(last - windows_over(rule, self._window_seconds), last)
        devices = self._devices(rule, instance)
        covered = self._covered_ratio(devices, windows)
        if rule.measure == "missing_ratio":
            return None if covered is None else 1.0 - covered
        if covered is None or covered < LEAST_COVERED:
            return None
        if rule.measure in _PART_OF:
            return self._part(_PART_OF[rule.measure], instance, windows)
        if not _wants_lines(rule):
            return self._metered_watts(devices, windows)
        found = self._lines_by(rule.per)
        lines = [line for number in windows for line in found.get((number, instance), ())]
        return _figure(rule.measure, lines, len(windows) * self._window_seconds)

    def _devices(self, rule: Alert, instance: Instance) -> list[DeviceKey]:
        """Those on which the figure rests: of its host where it has one, else all."""
        if "host" in rule.per:
            return self._devices_of.get(instance[rule.per.index("host")], [])
        return list(self.devices)

    def _covered_ratio(self, devices: Sequence[DeviceKey], windows: range) -> float | None:
        """Of the time in which the devices should have been measured, the part in which they were."""
        start, end = windows.start * self._window_seconds, windows.stop * self._window_seconds
        expected = math.fsum(expected_seconds(self.devices[key], start, end) for key in devices)
        if expected <= 0.0:
            return None
        found = (self._meters.get((number, key)) for key in devices for number in windows)
        measured = math.fsum(meter.covered_seconds or 0.0 for meter in found if meter is not None)
        return min(1.0, measured / expected)

    def _metered_watts(self, devices: Sequence[DeviceKey], windows: range) -> float:
        """Each device's mean power while it was measured, added up: 300 J in 8 of 10 s are 37.5 W."""
        watts = []
        for key in devices:
            found = [meter for number in windows if (meter := self._meters.get((number, key))) is not None]
            told = [meter for meter in found if meter.energy_joules is not None and meter.covered_seconds]
            if told:
                energy = math.fsum(meter.energy_joules or 0.0 for meter in told)
                watts.append(energy / math.fsum(meter.covered_seconds or 0.0 for meter in told))
        return math.fsum(watts)

    def _part(self, name: str, instance: Instance, windows: range) -> float | None:
        """The part of all energy that is in one account; of no energy there is none."""
        hosts = instance or tuple(self._devices_of)
        books = self._books()
        found = [each for number in windows for host in hosts if (each := books.get((number, host))) is not None]
        whole = math.fsum(getattr(each, field) for each in found for field in _ACCOUNTS)
        return math.fsum(getattr(each, name) for each in found) / whole if whole else None

    def _books(self) -> dict[tuple[int, str], WindowBooks]:
        """The accounts of each host's window."""
        if self._hosts is None:
            asked = WindowsQuery(start=self._start, end=self._end)
            found = every_window(self._query, self._principal, asked)
            self._hosts = {(window_at(each.time, self._window_seconds), each.host): each for each in found}
        return self._hosts

    def _lines_by(self, per: tuple[str, ...]) -> dict[tuple[int, Instance], list[AllocationLine]]:
        """The lines by the number of their window and their values of `per`."""
        if per not in self._lines_per:
            places = [self._dimensions.index(name) for name in per]
            found: defaultdict[tuple[int, Instance], list[AllocationLine]] = defaultdict(list)
            for number, line in self._all_lines():
                found[number, tuple(line.key[place] for place in places)].append(line)
            self._lines_per[per] = found
        return self._lines_per[per]

    def _all_lines(self) -> list[tuple[int, AllocationLine]]:
        """By all dimensions that any rule wants, so that rows are added up once; window by window, for the pages."""
        if self._lines is None:
            edges = range(window_at(self._start, self._window_seconds), window_at(self._end, self._window_seconds))
            self._lines = [(number, line) for number in edges for line in self._lines_of(number)]
        return self._lines

    def _lines_of(self, number: int) -> Iterator[AllocationLine]:
        start, end = window_start(number, self._window_seconds), window_start(number + 1, self._window_seconds)
        asked = AllocationQuery(start=start, end=end, by=self._dimensions)
        for each in whole_allocation(self._query, self._principal, asked).lines:
            yield each.line


def _wants_lines(rule: Alert) -> bool:
    """Whether its figure is made of allocation lines: the books and meters of whole hosts are cheaper to read."""
    of_whole_hosts = "team" not in rule.per and "model" not in rule.per
    return rule.measure in _LINE_MEASURES or (rule.measure == "power_watts" and not of_whole_hosts)


def _figure(measure: str, lines: Sequence[AllocationLine], seconds: float) -> float | None:
    """Of the lines of one instance over so many seconds."""
    if measure == "power_watts":
        return math.fsum(line.energy_joules for line in lines) / seconds
    if measure == "emissions_grams_per_hour":
        return _grams_per_hour(lines, seconds)
    return _joules_per_output_token(lines)


def _grams_per_hour(lines: Sequence[AllocationLine], seconds: float) -> float | None:
    """1 g in 60 s are 60 g an hour. None where no factor is known for a good part of the energy."""
    joules = math.fsum(line.energy_joules for line in lines)
    if math.fsum(line.factorless_joules for line in lines) > (1.0 - LEAST_COVERED) * joules:
        return None
    return math.fsum(line.emissions_grams or 0.0 for line in lines) * SECONDS_PER_HOUR / seconds


def _joules_per_output_token(lines: Sequence[AllocationLine]) -> float | None:
    """Attributed energy by the tokens of the requests that ended; None without tokens, or where many did not tell."""
    used = [line for line in lines if line.account == ATTRIBUTED]
    tokens = math.fsum(line.output_tokens or 0.0 for line in used)
    untold = math.fsum(line.untold_requests or 0.0 for line in used)
    if not tokens or untold > (1.0 - LEAST_COVERED) * math.fsum(line.requests or 0.0 for line in used):
        return None
    return math.fsum(line.energy_joules for line in used) / tokens
