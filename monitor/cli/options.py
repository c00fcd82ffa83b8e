"""What several commands take in the same form."""

import click

from monitor.cli.moments import duration


def duration_option(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """The callback of an option that takes a duration: seconds, or None where it is not given."""
    try:
        return None if value is None else duration(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error
