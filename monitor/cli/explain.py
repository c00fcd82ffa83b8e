"""`wattribute explain`: how one request's joules came about, computed again from the log."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collectors.clock import SystemClock, rfc3339
from monitor.cli.moments import FORMS, moment
from monitor.reports.layout import columns

if TYPE_CHECKING:
    from monitor.config.sections import Config
    from monitor.core.attribution.priors import Scalars
    from monitor.core.explain import Part
    from monitor.roles.explaining import Explained

COLUMNS = ("window", "device", "measured", "this", "= own tokens", "+ equal part", "others", "idle", "unattributed")
EXIT_FAILED = 1
PRICED = "virtual-energy"
"""How the names of methods begin that price work."""
AT_SECONDS = 3_600.0


@click.command()
@click.argument("request_id")
@click.option("--from", "start", default="-7d", show_default=True, metavar="WHEN", help=f"Look from there: {FORMS}.")
@click.option("--to", "end", default="now", show_default=True, metavar="WHEN", help="Look up to there; likewise.")
@click.option("--host", help="In a fleet: the host that it ran on.")
@click.option("--at", metavar="WHEN", help="A moment within an hour of its end, in place of --from and --to.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
def explain(
    *,
    request_id: str,
    start: str,
    end: str,
    host: str | None,
    at: str | None,
    as_json: bool,
    config_file: Path | None,
    data: Path | None,
) -> None:
    """Show how the joules of REQUEST_ID came about, window by window and device by device.

    The windows are computed again from the log, and the sum is compared with the books. Of each device measured is this
    request, all others in one sum, idle and unattributed; of the request, its own tokens and its equal part of what own
    tokens left. Of requests whose windows are final (15 minutes after their end); reads beside a running daemon.

    In a fleet ([kafka] bootstrap_servers) one partition of the log is read, and each account of the host in the
    request's windows is compared with the books. The request is found by its row where the store keeps requests, else
    by --host and --at, else by --at alone in the topic of request energy; it takes as long as reading three hours of
    that partition.

    Exit codes: 0 done, 1 the books say otherwise, 2 wrong use or no such request, 3 the log or store cannot be read.
    """
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.log.sqlite import SqliteLog
    from monitor.roles.embedded import LOG_FILE, STORE_FILE, gains_of
    from monitor.roles.explaining import explain as explained_from
    from monitor.store.open import open_store

    now = SystemClock().now()
    try:
        middle = None if at is None else moment(at, now)
        begin = moment(start, now) if middle is None else middle - AT_SECONDS
        finish = moment(end, now) if middle is None else middle + AT_SECONDS
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    config = load_config(config_file, environ=os.environ)
    configure(config.logging.level, config.logging.format)
    folder = config.data.directory if data is None else data
    in_fleet = bool(config.kafka.bootstrap_servers)
    if in_fleet:
        found = _of_fleet(config, folder / STORE_FILE, request_id, (begin, finish), host=host, bounded=at is not None)
    else:
        log = SqliteLog(folder / LOG_FILE, read_only=True)
        try:
            store = open_store(config, folder / STORE_FILE, read_only=True)
            try:
                found = explained_from(log, store, request_id, begin, finish, gains=gains_of(config))
            finally:
                store.close()
        finally:
            log.close()
        found = [each for each in found if host in (None, each.host)]
    if not found:
        where = f"in the log of {host}" if in_fleet and host else "in the books"
        raise click.UsageError(
            f"no request {request_id!r} {where} from {rfc3339(begin)} to {rfc3339(finish)}; widen --from and --to,"
            " or wait until its windows are final"
        )
    if as_json:
        click.echo(json.dumps([_as_json(each) for each in found], indent=2))
    else:
        click.echo("\n\n".join("\n".join(_lines(each)) for each in found))
    if not all(_agrees(each) for each in found):
        why = "the log no longer gives what the books say: it holds too little of that time"
        if any(each.unbooked for each in found):
            why = "its windows are not all in the books: wait until they are final, if the store still keeps them"
        click.echo(f"explain: {why}", err=True)
        sys.exit(EXIT_FAILED)


def _of_fleet(
    config: "Config",
    store_file: Path,
    request_id: str,
    between: tuple[float, float],
    *,
    host: str | None,
    bounded: bool,
) -> "list[Explained]":
    from monitor.roles.explaining_fleet import NotFindable, explain_in_fleet
    from monitor.store.open import open_store

    store = open_store(config, store_file, read_only=True)
    try:
        return explain_in_fleet(config, store, request_id, *between, host=host, bounded=bounded)
    except NotFindable as error:
        raise click.UsageError(str(error)) from error
    finally:
        store.close()


def _agrees(each: "Explained") -> bool:
    computed, booked = sum(part.energy_joules for part in each.parts), each.booked_joules
    same = booked is None or abs(computed - booked) <= 1e-9 * max(booked, 1.0)
    return same and not each.unbooked and not each.differing


def _lines(each: "Explained") -> list[str]:
    tokens = [
        f"{value:,.0f} {name}"
        for name, value in (
            ("tokens in", each.input_tokens),
            ("of them cached", each.cached_input_tokens),
            ("tokens out", each.output_tokens),
        )
        if value is not None
    ]
    if each.work_amount is not None:
        tokens.append(f"{each.work_amount:,.6g} {each.work_unit}")
    parts = each.parts
    total = [sum(values) for values in zip(*(_figures(part) for part in parts), strict=True)] or [0.0] * 7
    rows = [(rfc3339(part.start), part.device, *map(_joules, _figures(part))) for part in parts]
    return [
        f"{each.request_id} (attempt {each.attempt}) of {each.model}, team {each.team}, on {each.host}",
        f"{rfc3339(each.start)} to {rfc3339(each.end)}, {', '.join(tokens) or 'tokens not told'}",
        f"joules, split by {each.method}:",
        "",
        *columns(COLUMNS, [*rows, ("sum", "", *map(_joules, total))], left=2),
        "",
        *(_prices(parts) if each.method.startswith(PRICED) else [f"by {each.method}: no price of work decides"]),
        *_doubts(each),
        *_books(each, total[1]),
    ]


def _books(each: "Explained", computed_joules: float) -> list[str]:
    """What stands in the books of it, and of its host's windows in a fleet."""
    lines = []
    if each.booked_joules is not None:
        same = abs(computed_joules - each.booked_joules) <= 1e-9 * max(each.booked_joules, 1.0)
        but = "" if same else f", which is not the {_joules(computed_joules)} J computed here"
        lines.append(f"in the books: {_joules(each.booked_joules)} J{but}")
    elif not each.unbooked and not each.differing:
        lines.append("the books hold the same accounts of its windows; they keep no row of the request itself")
    for windows, what in ((each.unbooked, "not in the books"), (each.differing, "otherwise in the books")):
        if windows:
            lines.append(f"{what}: the windows of {', '.join(map(rfc3339, windows))}")
    return lines


def _figures(part: "Part") -> tuple[float, ...]:
    """In the order of COLUMNS, behind window and device."""
    paid = (part.energy_joules, part.own_joules, part.equal_joules)
    return part.measured_joules, *paid, part.others_joules, part.idle_joules, part.unattributed_joules


def _joules(value: float) -> str:
    return f"{value:,.3f}"


def _prices(parts: "Sequence[Part]") -> list[str]:
    """What own tokens were priced at, and how much of it the meter held; once for each device."""
    lines = []
    for device in dict.fromkeys(part.device for part in parts):
        mine = [part for part in parts if part.device == device]
        priced, own = sum(part.priced_joules for part in mine), sum(part.own_joules for part in mine)
        if priced <= 0.0:
            lines.append(f"{device}: no price of its own tokens is known or applies; it pays equal parts alone")
            continue
        scalars = dict.fromkeys(
            priced_by(part.scalars) if part.joules_per_unit is None else f"{part.joules_per_unit:.6g} J per {part.unit}"
            for part in mine
        )
        own_what = "own tokens are" if mine[0].unit is None else "its own work is"
        lines.append(
            f"{device} ({mine[0].hardware or 'type not told'}): {own_what} priced at {_joules(priced)} J by"
            f" {', then '.join(scalars)}; {100 * own / priced:.1f} % of it is charged, as far as was measured"
        )
        if held := [part.held_watts for part in mine if part.held_watts is not None]:
            lines.append(
                f"{device}: in {len(held)} of {len(mine)} windows a power limit held it, at {min(held):.0f} to"
                f" {max(held):.0f} W: idle power goes by the joules of the work there"
            )
    lines += [
        f"{device}: split among its MIG instances by their activity first; nothing meters an instance"
        for device in dict.fromkeys(part.device for part in parts if part.by_instance)
    ]
    waited = [part.estimated_start for part in parts if part.estimated_start is not None]
    if waited:
        lines.append(
            f"no event says when it was scheduled; by the engine's queue, or its first token, about"
            f" {rfc3339(min(waited))} (estimated)"
        )
    most = max((part.requests for part in parts), default=0)
    return [*lines, f"at most {most} requests in one of its windows and devices, itself included"]


def priced_by(scalars: "Scalars") -> str:
    """J/FLOP and J/byte in words, and how experts of a step were taken to be read where that was learned."""
    both = f"{scalars.joules_per_flop * 1e12:.3f} pJ/FLOP and {scalars.joules_per_byte * 1e9:.4f} nJ/byte"
    exponent = scalars.routing_exponent
    return both if exponent == 1.0 else f"{both} (n tokens read the experts of n^{exponent:g})"


def _doubts(each: "Explained") -> list[str]:
    """What the joules rest on, and between what figures they truly lie."""
    if not each.parts:
        return []
    tiers: dict[str, float] = {}
    for part in each.parts:
        tiers[part.tier] = tiers.get(part.tier, 0.0) + part.energy_joules
    resting = ", ".join(f"{name.replace('_', ' ')} {_joules(joules)} J" for name, joules in sorted(tiers.items()))
    band = each.band
    if band.low_joules is None or band.high_joules is None or band.split_joules is None:
        told = f"rests on: {resting}; " if each.method.startswith(PRICED) else ""
        return [f"{told}how far the split may be off is not known"]
    return [
        f"rests on: {resting}",
        f"nine times in ten it is truly {_joules(band.low_joules)} to {_joules(band.high_joules)} J:"
        f" {_joules(band.split_joules)} J by the split, the rest by what the meter may be off",
    ]


def _as_json(each: "Explained") -> Mapping[str, object]:
    import msgspec

    told = msgspec.to_builtins(each)
    for row, part in zip(told["parts"], each.parts, strict=True):
        row["equal_joules"] = part.equal_joules
    return {**told, "agrees": _agrees(each)}
