"""`wattribute replay`: a recording through log, ledger and store, and the statement of it."""

import math
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click


def speed_of(_ctx: click.Context, _param: click.Parameter, value: str) -> float:
    """ "max" or how many times faster than it was recorded."""
    if value == "max":
        return math.inf
    try:
        speed = float(value.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not speed > 0:
        raise click.BadParameter(f'{value!r} is neither "max" nor a number above 0, such as 60')
    return speed


@click.command()
@click.argument("recordings", metavar="RECORDING...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="The statement as JSON.")
@click.option("--requests", "requests_csv", type=click.Path(path_type=Path), help="Write a line per request as CSV.")
@click.option("--speed", default="max", show_default=True, callback=speed_of, help='"max", or 60 for 60x real time.')
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="Keep log and store in this folder.")
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
@click.option(
    "--quiet-level/--no-quiet-level",
    default=True,
    show_default=True,
    help="Take idle watts from the whole recording where host.toml tells none.",
)
@click.option(
    "--method",
    default="learned",
    show_default=True,
    type=click.Choice(["learned", "prior", "token-share", "time-share"]),
    help="How energy is split: the default, or what others do, to see what it changes.",
)
@click.option(
    "--fit",
    default="causal",
    show_default=True,
    type=click.Choice(["causal", "whole"]),
    help="Learn what work costs as it goes, as the daemon does, or on the whole recording first.",
)
def replay(
    *,
    recordings: tuple[Path, ...],
    as_json: bool,
    requests_csv: Path | None,
    speed: float,
    data: Path | None,
    config_file: Path | None,
    quiet_level: bool,
    method: str,
    fit: str,
) -> None:
    """Plays RECORDING (a folder; docs/recording.md) and prints its statement.

    Without --data, log and store live in a temporary folder. With it, a replay that was cut off goes on where its log
    ends, and `wattribute report --data DIR` asks further questions.

    With --fit whole the recording is played twice: first to learn, then to split all of it, its first minutes too, by
    what it teaches in the end. A daemon cannot know that; it is for audits and comparisons, and the statement says so.

    Exit codes: 0 done, 2 wrong use, 3 an unusable recording, or log or store unavailable.
    """
    import msgspec
    import structlog

    from collectors.recording import load_recording
    from collectors.replay import with_quiet_level
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.core.attribution.methods import SHORT_NAMES, WHOLE_FIT
    from monitor.reports.statement import request_csv, statement
    from monitor.reports.statement_text import render_json, render_text
    from monitor.roles.embedded import LOCAL_ADMIN, Embedded
    from monitor.service import lessons_of, replay_into

    whole = fit == "whole"
    if whole and method != "learned":
        raise click.UsageError(f"--fit whole is about what is learned, and --method {method} goes by nothing learned")
    config = load_config(config_file, environ=os.environ)
    configure(config.logging.level, config.logging.format)
    loaded = [load_recording(path, allowed_labels=config.accounting.label_keys) for path in recordings]
    if quiet_level:
        loaded = [with_quiet_level(recording) for recording in loaded]
    with ExitStack() as stack:
        out = stack.enter_context(requests_csv.open("w", encoding="utf-8", newline="")) if requests_csv else None
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wattribute-")))
        house = stack.enter_context(Embedded(folder, config))
        bar = stack.enter_context(
            click.progressbar(length=1000, label="replaying", file=sys.stderr, hidden=not sys.stderr.isatty())
        )
        parts = 2 if whole else 1

        def go_to(done: float) -> None:
            bar.update(int(done * 1000) - bar.pos)

        taught = lessons_of(config, loaded, on_progress=lambda done: go_to(done / 2)) if whole else []
        run = replay_into(
            house,
            loaded,
            speed=speed,
            on_progress=lambda done: go_to(1.0 - (1.0 - done) / parts),
            method=WHOLE_FIT if whole else SHORT_NAMES[method],
            taught=taught,
        )
        bar.finish()
        structlog.get_logger().debug("replayed", finished=run.finished, **msgspec.structs.asdict(run.progress))
        query = house.query()
        start, end = run.span(config.accounting.window_seconds)
        told = statement(query, LOCAL_ADMIN, start, end)
        if out is not None:
            request_csv(query, LOCAL_ADMIN, start, end, out)
    click.echo(render_json(told) if as_json else render_text(told), nl=not as_json)
    if whole:
        click.echo(
            "split by what the whole recording teaches (--fit whole):\n  a daemon would have known less at the time",
            err=as_json,
        )
    elif method != "learned":
        click.echo(f"split by {SHORT_NAMES[method]} (--method {method}), not as a daemon does", err=as_json)
    for zone in run.zones_without_factor:
        click.echo(f"no carbon intensity is known for zone {zone!r}: emissions are missing, not zero", err=True)
    if not any(recording.readings for recording in loaded):
        click.echo("no reading could be used: nothing is measured, and no energy is known", err=True)
