"""Where within its readings the joules of a device were: a reading tells how much was used in its time, never when.

Two things are known all the same. While nobody was active a device draws what it draws when quiet, so what a reading of
about a second holds above that was used while somebody was. And a request's tokens do not come evenly: while a prompt
is computed, the others nearly stand still, so their own joules, spread evenly, exceed for a moment what was measured,
and fall short of it a moment later. Both are put right within 2 s (or one longer reading), the second among requests
that overlap, and leave every sum as it was measured.

Columns in, columns out; a value for each piece (pieces.py), for each reading, or for each span of readings.
"""

from typing import Final, NamedTuple

import numpy as np

from monitor.core.attribution.pieces import Column, Flags, Places

SPAN_SECONDS: Final = 2.0
"""Longer than it takes to compute nearly any prompt."""
FINE_SECONDS: Final = 0.5
"""A reading up to this long tells well enough when its joules were. On A100s read at 10 Hz, whose requests an energy
counter of their own vouches for, moving joules within such readings made an error of 1.1 % out of one of 0.05 %."""
COARSE_SECONDS: Final = 2.0
"""In a reading longer than this too much else may have gone on: it is taken as even."""


class Readings(NamedTuple):
    """Of each reading: its joules per second, whether they may move within it (`loose`), the number of its device, and
    that device's idle power and power limit. The readings of a device stand together; infinite where none is known.
    """

    watts: Column
    loose: Flags
    device: Column
    idle_watts: Column
    limit_watts: Column


def loose(lasts_seconds: Column, recovered: Flags) -> Flags:
    """Which readings last about a second, and were measured as they went."""
    return (lasts_seconds > FINE_SECONDS) & (lasts_seconds <= COARSE_SECONDS) & ~recovered


def spans_of(start: Column, recovered: Flags, modelled: Flags) -> Places:
    """For each reading the number of its span: neighbours that begin within the same 2 s and were come by alike.

    Readings that begin at 0, 1, 2 and 7 s, all counted: (0, 0, 1, 2).
    """
    if len(start) == 0:
        return np.empty(0, dtype=np.intp)
    cell = np.floor(start / SPAN_SECONDS)
    other = (np.diff(cell) != 0) | (recovered[1:] != recovered[:-1]) | (modelled[1:] != modelled[:-1])
    return np.concatenate((np.zeros(1, dtype=np.intp), np.cumsum(other)))


class Placed(NamedTuple):
    """Of each piece: its joules, its seconds, the reading that it lies in, and whether somebody is active.

    Pieces outside of all readings are left out of the question: `covered` is False. `stays` (0-1) is the part of a
    quiet piece's joules that has an owner already.
    """

    joules: Column
    seconds: Column
    reading: Places
    covered: Flags
    busy: Flags
    stays: Column


def gathered(pieces: Placed, readings: Readings) -> Column:
    """The pieces' joules once what a loose reading holds above quiet lies where somebody was active in it.

    Quiet is the idle power, or the lower of the nearest readings before and after in which nobody was active, if that
    is more: a stray process that goes on is no request's. No piece gets more than the device's power limit.

    1 s at 250 W of which a request has 0.5 s, 50 W idle: 25 J quiet, 225 J (450 W) to the request's half second.
    """
    count = len(readings.watts)
    busy = pieces.covered & pieces.busy
    busy_seconds = np.bincount(pieces.reading, np.where(busy, pieces.seconds, 0.0), count)
    mixed = readings.loose & (busy_seconds > 0.0)
    gives = pieces.covered & ~pieces.busy & mixed[pieces.reading]
    if not (gives & (pieces.seconds > 0.0)).any():
        return pieces.joules
    quiet_watts = _quiet_watts(readings, readings.loose & (busy_seconds == 0.0))
    over = np.maximum(pieces.joules - quiet_watts[pieces.reading] * pieces.seconds, 0.0) * (1.0 - pieces.stays)
    moved = np.bincount(pieces.reading, np.where(gives, over, 0.0), count)
    held = np.bincount(pieces.reading, np.where(busy, pieces.joules, 0.0), count)
    most = np.multiply(readings.limit_watts, busy_seconds, out=np.zeros(count), where=busy_seconds > 0.0)
    room = np.maximum(most - held, 0.0)
    part = np.divide(room, moved, out=np.ones(count), where=moved > room)
    more_watts = np.divide(moved * part, busy_seconds, out=np.zeros(count), where=mixed)
    takes = busy & mixed[pieces.reading]
    given = np.where(gives, over * part[pieces.reading], 0.0)
    taken = np.where(takes, more_watts[pieces.reading] * pieces.seconds, 0.0)
    return pieces.joules - given + taken


def _quiet_watts(readings: Readings, quiet: Flags) -> Column:
    """For each reading the power at which its device is taken to be quiet."""
    watts, device = readings.watts, readings.device
    place = np.arange(len(watts))
    before = np.maximum.accumulate(np.where(quiet, place, -1))
    after = np.minimum.accumulate(np.where(quiet, place, len(watts))[::-1])[::-1]
    known = np.concatenate((watts, [np.inf]))  # the last place, -1 too, stands for "there is none"
    whose = np.concatenate((device, [np.inf]))
    lower = np.minimum(
        np.where(whose[before] == device, known[before], np.inf), np.where(whose[after] == device, known[after], np.inf)
    )
    return np.maximum(np.where(np.isinf(lower), readings.idle_watts, lower), readings.idle_watts)


def stretches(span: Places, edges: Column, begin: Places, end: Places) -> Places:
    """For each piece the number of its stretch: its readings' span, cut wherever no request goes on.

    `span` of each piece, rising within a device; the pieces lie between its sorted `edges`, and request i begins at the
    place begin[i] of these and ends at end[i]. Two requests one after the other within a span: each a stretch of its
    own.
    """
    # Equal ones are one; where the next device begins, time goes back.
    moment: Places = np.concatenate((np.zeros(1, dtype=np.intp), np.cumsum(edges[1:] != edges[:-1])))
    first, last = moment[begin], moment[end]
    lasts: Flags = first < last
    begun, over = np.bincount(first[lasts] + 1, minlength=len(edges)), np.bincount(last[lasts], minlength=len(edges))
    goes_on = np.cumsum(begun[: len(edges)] - over) > 0
    at = moment[: len(span)]
    new = (np.diff(span) != 0) | ((np.diff(at) > 0) & ~goes_on[at[1:]])
    return np.concatenate((np.zeros(1, dtype=np.intp), np.cumsum(new)))


def settled(shared: Column, priced: Column, span: Places, *, rest_equally: bool = True) -> tuple[Column, Column]:
    """(factor on the requests' own joules, what is left to share equally) of each piece; each `span` sums as measured.

    Within a span (or stretch) the pieces in which the requests' own joules exceed what was measured take the difference
    from those in which they fall short, each in proportion to what it has left. If they exceed the whole span they are
    scaled down, and nothing is left.

    Where the rest is not shared equally, own joules are scaled up to what was measured as well.

    100 J and 100 J measured, 130 J and 50 J their own: 1, and 0 J and 20 J left. Own 300 J and 100 J: 0.5 and nothing.
    """
    count = int(span[-1]) + 1 if len(span) else 0
    short_of = shared - priced
    surplus, missing = np.maximum(short_of, 0.0), np.maximum(-short_of, 0.0)
    spare, lack = np.bincount(span, surplus, count), np.bincount(span, missing, count)
    asked, had = np.bincount(span, priced, count), np.bincount(span, shared, count)
    enough = (spare >= lack) & (rest_equally | (asked == 0.0))
    scale = np.where(enough, had > 0.0, np.divide(had, asked, out=np.ones(count), where=~enough))
    kept = np.where(enough, 1.0 - np.divide(lack, spare, out=np.zeros(count), where=enough & (spare > 0.0)), 0.0)
    return scale[span], surplus * kept[span]
