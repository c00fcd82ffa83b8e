"""How fast the requests that are decoded together get their tokens, from when each began, ended and how many it made.

One step of an engine makes one token for each of them, so there is one rate s(t) of steps that all have in common:
its integral from a request's first token to its end is the number of tokens that it made in between. Laid evenly over
their time, tokens would miss that everyone nearly stands still while a prompt is computed; s(t) does not, because those
who were there then are slower than those who were not.

In: columns of seconds. Out: steps and tokens of a window. No Python loop per request.
"""

from typing import Final, NamedTuple

import numpy as np

from monitor.core.attribution.pieces import Column, Pieces, Places

_OVERSHOOTS: Final = (1.9,) * 7 + (1.0,)
"""Of each round, how much farther than to the point it goes; the last one ends an overshoot that all have in common. On
a saturated engine (the simulator's `heavy`) the steps of 10 s are then right to 4 %, as after 16 rounds that do not
overshoot; the mean of the requests' own rates is 11 % off."""


class Progress(NamedTuple):
    """What was made in a window.

    `steps` of the engine; of each request (length n) how many of its tokens had been made when the window began, and
    when it ended.
    """

    steps: float
    before: Column
    until: Column


def progress_of(first: Column, end: Column, made: Column, length_seconds: float) -> Progress:
    """What requests of one engine made in [0, length_seconds), who decode over [first, end) and make `made` tokens.

    All that touch the window, in seconds from its beginning; `made` >= 0 do not count the first token. One who makes
    none, or takes no time for it, tells nothing of the rate.

    One request makes 30 tokens over [0, 2), another 10 over [1, 2): 20 steps in the first second, and 10 in the other,
    as far as the rounds come; by the mean of their own rates it would be 15 and 12.5.
    """
    decodes = (end > first) & (made > 0.0)
    begin = float(np.min(first, initial=0.0, where=decodes))
    last = float(np.max(end, initial=length_seconds, where=decodes))
    window = np.array([0.0, length_seconds]) - begin
    pieces = Pieces(last - begin, [(first[decodes] - begin, end[decodes] - begin, window)])
    begins, ends, (opens, closes) = pieces.places
    share = _share(pieces, begins, ends)
    tokens = made[decodes]
    rate = pieces.running(tokens / (end - first)[decodes], begins, ends) * share
    for overshoot in _OVERSHOOTS:
        expected = pieces.over(rate * pieces.seconds, begins, ends)
        missed = np.divide(tokens, expected, out=np.ones_like(tokens), where=expected > 0.0)
        rate = rate * np.maximum(pieces.running(missed, begins, ends) * share, 0.0) ** overshoot
    steps = np.concatenate((np.zeros(1), np.cumsum(rate * pieces.seconds)))
    whole = steps[ends] - steps[begins]
    per_step = np.divide(tokens, whole, out=np.zeros_like(tokens), where=whole > 0.0)
    before, until = np.zeros_like(made), np.zeros_like(made)
    before[decodes] = per_step * (steps[np.clip(opens, begins, ends)] - steps[begins])
    until[decodes] = per_step * (steps[np.clip(closes, begins, ends)] - steps[begins])
    return Progress(float(steps[closes] - steps[opens]), before, until)


def _share(pieces: Pieces, begins: Places, ends: Places) -> Column:
    """Of each piece 1 / how many decode in it, 0 where nobody does."""
    count = np.round(pieces.running(np.ones(len(begins)), begins, ends))
    return np.divide(1.0, count, out=np.zeros_like(count), where=count > 0.0)
