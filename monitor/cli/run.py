"""`wattribute run`: the daemon on its embedded log and store."""

import math
import os
from pathlib import Path

import click


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
def run(*, config_file: Path | None, data: Path | None) -> None:
    """Keeps the books of the sources in the configuration until they end or it is told to stop.

    Sources of kind "recording" are played on their own clock, at their speed, and the daemon ends when they have. Those
    of kind "file" are followed on this machine's clock. One daemon does either.

    SIGTERM and Ctrl-C finish what is under way and stop. Exit codes: 0 done or told to stop, 2 wrong configuration, 3
    log or store unavailable.
    """
    from collectors.clock import SystemClock
    from collectors.recording import load_recording
    from collectors.replay import with_quiet_level
    from monitor.cli.logging import configure
    from monitor.config.load import load_config
    from monitor.roles.embedded import Embedded
    from monitor.service import follow_files, replay_into, stop_on_signals

    config = load_config(config_file, environ=os.environ)
    configure(config.logging.level, config.logging.format)
    recordings = [source for source in config.sources if source.kind == "recording"]
    files = [source for source in config.sources if source.kind == "file"]
    if bool(recordings) == bool(files):
        what = (
            "names both recordings and files; give each a daemon and a data folder of its own"
            if files
            else ('names no [[sources]] of kind "recording" or "file"; config.toml shows how')
        )
        raise click.UsageError(f"the configuration {what}")
    stop = stop_on_signals()
    with Embedded(data or config.data.directory, config) as house:
        if files:
            follow_files(house, clock=SystemClock(), should_stop=stop.is_set)
            return
        loaded = [
            with_quiet_level(load_recording(source.path, allowed_labels=config.accounting.label_keys))
            for source in recordings
            if source.path is not None
        ]
        speed = min((source.speed or 1.0) for source in recordings)
        outcome = replay_into(house, loaded, speed=speed, should_stop=stop.is_set)
    whole = "to its end" if outcome.finished else "until it was told to stop; started again, it goes on from there"
    pace = "as fast as it goes" if math.isinf(speed) else f"at {speed:g}x"
    click.echo(f"replayed {whole}, {pace}: {outcome.progress.finals} host windows final", err=True)
