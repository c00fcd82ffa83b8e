"""How long a store keeps what. In: the configuration. Out: seconds."""

import msgspec

from collectors.units import SECONDS_PER_DAY
from monitor.config.sections import Config


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long each kind of row is kept, in seconds; infinity is for ever."""

    windows_seconds: float = 35 * SECONDS_PER_DAY
    requests_seconds: float = 35 * SECONDS_PER_DAY
    provisional_seconds: float = 3 * SECONDS_PER_DAY
    hours_seconds: float = 400 * SECONDS_PER_DAY
    days_seconds: float = 3_660 * SECONDS_PER_DAY


def retention_of(config: Config) -> Retention:
    """How long the store keeps what, as configured."""
    store = config.store
    return Retention(
        windows_seconds=store.windows_retention_seconds,
        requests_seconds=store.requests_retention_seconds,
        provisional_seconds=store.provisional_retention_seconds,
        hours_seconds=store.hours_retention_seconds,
        days_seconds=store.days_retention_seconds,
    )
