"""How energy is split, by name: the default, and what others do, so that an auditor can see what the choice changes.

A method says what a request's own tokens cost, and who pays for what is left of the measured power. All of them share
exactly what the meter measured; idle, gaps and other processes are the same in each.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from monitor.core.attribution.hardware import Hardware
from monitor.core.attribution.models import TokenCost
from monitor.core.attribution.priors import PRIOR, Marginals, Scalars, marginals

_A_TOKEN: Final = Marginals(prefill_joules=1e-6, decode_joules=1e-6, context_joules=0.0)
_NOTHING: Final = Marginals(prefill_joules=0.0, decode_joules=0.0, context_joules=0.0)


class Method(Protocol):
    """One way to split a device's energy among its requests."""

    @property
    def rest_equally(self) -> bool:
        """Whether what own tokens leave is shared equally by those active, or in proportion to own tokens as well."""
        ...

    @property
    def fits_whole(self) -> bool:
        """Whether windows use what all lessons of the log teach, also later ones, and not what was in force then."""
        ...

    @property
    def learns(self) -> bool:
        """Whether work is priced by what was learned, that which makes no tokens too; else by priors, or not at all.

        And whether a CPU is its servers' by how busy each was, where there are several.
        """
        ...

    def price(
        self, cost: TokenCost, hardware: Hardware, idle_watts: float, learned: Scalars, held_watts: float | None
    ) -> Marginals:
        """What a token of a model costs on a device; `learned` are the scalars in force for its type, `held_watts` the
        power at which a limit holds it, None where none does.
        """
        ...


class VirtualEnergy:
    """Own tokens by J/FLOP and J/byte, the rest equally: by what was learned, or by the priors whatever was."""

    rest_equally = True

    def __init__(self, *, learns: bool, fits_whole: bool = False) -> None:
        self.learns = learns
        self.fits_whole = fits_whole

    def price(
        self, cost: TokenCost, hardware: Hardware, idle_watts: float, learned: Scalars, held_watts: float | None
    ) -> Marginals:
        """From FLOPs and bytes of a token (priors.py has the worked number)."""
        return marginals(cost, hardware, idle_watts, learned if self.learns else PRIOR, held_watts=held_watts)


class TokenShare:
    """Everything in proportion to tokens, prompt and answer alike, whatever the model."""

    rest_equally = learns = fits_whole = False

    def price(
        self, cost: TokenCost, hardware: Hardware, idle_watts: float, learned: Scalars, held_watts: float | None
    ) -> Marginals:
        """The same for each token; only the proportions count."""
        return _A_TOKEN


class TimeShare:
    """Everything in equal parts while active: no token costs anything of its own."""

    rest_equally = True
    learns = fits_whole = False

    def price(
        self, cost: TokenCost, hardware: Hardware, idle_watts: float, learned: Scalars, held_watts: float | None
    ) -> Marginals:
        """Nothing."""
        return _NOTHING


DEFAULT_METHOD: Final = "virtual-energy.5"
WHOLE_FIT: Final = "virtual-energy-whole.5"
"""The default's, by coefficients that were fitted on a whole recording first. A recording's alone: it has an end."""
METHODS: Final[Mapping[str, Method]] = MappingProxyType(
    {
        DEFAULT_METHOD: VirtualEnergy(learns=True),
        WHOLE_FIT: VirtualEnergy(learns=True, fits_whole=True),
        "virtual-energy-priors.5": VirtualEnergy(learns=False),
        "token-share.4": TokenShare(),
        "time-share.4": TimeShare(),
    }
)
"""By the name that stands in the terms of the books. Its number rises with each change of what rows it makes."""
SHORT_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "learned": DEFAULT_METHOD,
        "prior": "virtual-energy-priors.5",
        "token-share": "token-share.4",
        "time-share": "time-share.4",
    }
)
