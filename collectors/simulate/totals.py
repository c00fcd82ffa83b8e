"""The exact Shapley value of games in which only a set's total counts, and nearly all bring the same to it.

That is how a step needs experts: by its tokens, of which each decoding request has the same few and a prompt has many.
"""

from collections.abc import Callable

import numpy as np

from collectors.simulate.rates import Floats, Integers

MOST_OTHERS = 10  # 2^10 sets of them, times the number of those that are alike


def shares_of_total(value: Callable[[Floats], Floats], amounts: Floats) -> Floats | None:
    """What each pays, (n,), of value(the sum of all `amounts`); None if too many bring more than the least.

    Of the square of the total, amounts 1, 1 and 2 pay 4, 4 and 8: the last one adds 4 first, 8 second, 12 third.
    """
    least = amounts.min()
    alike = amounts == least
    others, few, count = amounts[~alike], int(alike.sum()), len(amounts)
    if len(others) > MOST_OTHERS:
        return None
    sets = np.arange(2 ** len(others))
    members = (sets[:, None] >> np.arange(len(others))) & 1  # (sets, others)
    beside = np.arange(few + 1)  # how many of those that are alike
    values = value((members @ others)[:, None] + beside * least)
    values[0, 0] = 0.0  # nobody costs nothing
    sizes = members.sum(axis=1)[:, None] + beside
    shares: Floats = np.empty(count)
    for place, index in enumerate(np.flatnonzero(~alike)):
        without = members[:, place] == 0
        added = values[sets[without] + 2**place] - values[without]
        shares[index] = (_weights(sizes[without], beside, few, count) * added).sum()
    shares[alike] = (values[-1, -1] - shares[~alike].sum()) / few
    return shares


def _weights(sizes: Integers, beside: Integers, few: int, count: int) -> Floats:
    """Of sets of these sizes, how often one of them stands before a given participant, over all orders.

    size! (count - size - 1)! / count!, as often as `beside` can be taken from `few`.
    """
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, count + 1)))])
    orders = log_factorial[sizes] + log_factorial[count - sizes - 1] - log_factorial[count]
    choices = log_factorial[few] - log_factorial[beside] - log_factorial[few - beside]
    weights: Floats = np.exp(orders + choices)
    return weights
