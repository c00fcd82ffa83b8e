"""One RAPL zone as it is watched: its file, how it does, its counter's track. In: the file. Out: interval energy."""

import errno
from collections import Counter
from typing import Final

from collectors.counter import HOLE_SECONDS
from collectors.device_track import STUCK_SECONDS, DeviceTrack, Sample
from collectors.kept_file import KeptFile
from collectors.meter import DeviceHealth, DeviceState
from collectors.rapl_zones import Zone
from collectors.readings import CounterMark, EnergyReading
from collectors.units import joules_from_microjoules

GRANT_READ: Final = (
    "let the daemon's group read energy_uj and max_energy_range_uj: install the udev rule for group powercap "
    "(docs/install.md), then see `wattribute doctor`"
)
MIRROR_JOULES: Final = 1.0
MIRROR_RATIO: Final = 1e-6
"""Two zones that agree within 1 J or 1e-6 show one counter (CodeCarbon issue 1274: 68 W + 68 W for one socket)."""
APART_READS: Final = 3
"""So many reads in a row must they differ before they are believed to be two counters after all."""

_GONE: Final = frozenset({errno.ENODEV, errno.ESTALE, errno.ENOENT, errno.ENOTDIR})
_FORBIDDEN: Final = frozenset({errno.EACCES, errno.EPERM})


class ZoneCounter:
    """Reads one zone. A read that fails is told in `state` and `detail`; it is never a number."""

    def __init__(self, zone: Zone, *, boot_id: str, mark: CounterMark | None = None) -> None:
        self.zone = zone
        self.state: DeviceState = "waiting"
        self.detail = ""
        self.mirror_of: ZoneCounter | None = None
        self.compared = False
        self._boot_id = boot_id
        self._file = KeptFile(zone.counter)
        self._track = self._new_track(mark if zone.range_joules is not None else None)
        self._past_events: Counter[str] = Counter()
        self._last_tick: float | None = None
        self._last_raw = float("nan")
        self._moved_tick = float("-inf")
        self._reads_apart = 0

    def _new_track(self, mark: CounterMark | None) -> DeviceTrack:
        return DeviceTrack(
            self.zone.device,
            boot_id=self._boot_id,
            power_limit_watts=self.zone.power_limit_watts,
            range_joules=self.zone.range_joules,
            mark=mark,
        )

    @property
    def mark(self) -> CounterMark | None:
        """Where the counter stands; None for one that only shows another's."""
        return None if self.mirror_of is not None else self._track.mark

    @property
    def events(self) -> Counter[str]:
        """How often each named thing happened."""
        return self._past_events + self._track.events

    @property
    def health(self) -> DeviceHealth:
        """How it does; a counter whose range is unknown works, and says what that costs."""
        detail = self.detail
        if not detail and self.zone.range_joules is None:
            detail = f"{self.zone.range_error}: the interval of each wrap is lost; {GRANT_READ}"
        return DeviceHealth(device=self.zone.device, state=self.state, detail=detail)

    def move_to(self, zone: Zone) -> None:
        """The zone is there again, in this folder."""
        self.close()
        self.zone, self._file = zone, KeptFile(zone.counter)
        self.state, self.detail = "waiting", ""

    def raw_joules(self) -> float | None:
        """The counter now; None where it cannot be read, `state` then says why."""
        try:
            joules = joules_from_microjoules(int(self._file.read()))
        except OSError as error:
            self._failed(error)
            return None
        except ValueError:
            self.state, self.detail = "not_responding", f"{self.zone.counter} holds no whole number"
            self._past_events["unreadable"] += 1
            return None
        if self.state not in {"ok", "waiting"} and joules != self._last_raw:
            self.state, self.detail = "waiting", ""
        return joules

    def _failed(self, error: OSError) -> None:
        reason = error.strerror or str(error)
        was, path = self.state, self.zone.counter
        if error.errno in _FORBIDDEN:
            self.state, self.detail = "broken", f"{path}: {reason}; {GRANT_READ}"
        elif error.errno in _GONE:
            self.state = "gone"
            self.detail = f"{path}: {reason}; the zone was removed (driver unloaded, socket offline)"
        else:
            self.state, self.detail = "not_responding", f"{path}: {reason}"
        if self.state != was or self.state == "not_responding":
            self._past_events["unreadable" if self.state == "not_responding" else self.state] += 1

    def take(self, raw_joules: float, *, at: float, tick: float) -> list[EnergyReading]:
        """The readings that end with this value.

        Without a range nobody knows whether a hole hid a wrap (a 2^32 counter of 15.3 uJ wraps at 65.5 kJ): what was
        used in it is lost, and named.
        """
        if self._stands_still(raw_joules, tick):
            return []
        since, self._last_tick = self._last_tick, tick
        if self.zone.range_joules is None and since is not None and tick - since > HOLE_SECONDS:
            self._past_events += self._track.events
            self._past_events["lost"] += 1
            self._track = self._new_track(None)
        readings = self._track.take(Sample(at=at, tick=tick, energy_joules=raw_joules))
        if readings:
            self.state, self.detail = "ok", ""
        return readings

    def _stands_still(self, raw_joules: float, tick: float) -> bool:
        """Whether it shows what it showed last. That is no 0 J: a powered zone counts 15 uJ many times a second."""
        if raw_joules != self._last_raw:
            self._last_raw, self._moved_tick = raw_joules, tick
            return False
        if tick - self._moved_tick >= STUCK_SECONDS and self.state != "not_responding":
            self.state, self.detail = "not_responding", f"{self.zone.counter} stands still at {raw_joules:.6f} J"
            self._past_events["counter_stuck"] += 1
        return True

    def mirrors(self, other: "ZoneCounter") -> bool:
        """Whether this counter shows what `other` shows, which is read before and after it: time passes in between."""
        before, own, after = other.raw_joules(), self.raw_joules(), other.raw_joules()
        if before is None or own is None or after is None:
            return False
        return lies_within(before, own, after, span=self.zone.range_joules)

    def begin_mirror(self, other: "ZoneCounter") -> None:
        """It adds nothing to `other` from here on."""
        self.mirror_of, self._reads_apart = other, 0
        self._past_events["mirror"] += 1

    def check_mirror(self) -> None:
        """Ends the mirroring after three reads in a row that differ; while the other cannot be read it goes on."""
        other = self.mirror_of
        if other is None or self.mirrors(other) or {"gone", "broken", "not_responding"} & {self.state, other.state}:
            self._reads_apart = 0
            return
        self._reads_apart += 1
        if self._reads_apart >= APART_READS:
            self.mirror_of = None
            self._past_events["mirror_ended"] += 1

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()


def lies_within(first: float, value: float, last: float, *, span: float | None) -> bool:
    """Whether a count lies between two others, within 1 J or 1e-6 of it, also where they pass the end of the range.

    Range 262 143 J: 2 J lies between 262 142.5 J and 1.5 J, and 4 J does not.
    """
    tolerance = max(MIRROR_JOULES, MIRROR_RATIO * value)
    ahead, width = value - first + tolerance, last - first
    if span is not None:
        ahead, width = ahead % span, width % span
    return 0.0 <= ahead <= width + 2.0 * tolerance
