"""`wattribute run`: the daemon on its embedded log and store."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import threading

    from collectors.recording import Recording
    from monitor.config.sections import Config
    from monitor.roles.fleet import FleetHouse
    from monitor.roles.live import LiveHouse


@click.command()
@click.option("--config", "config_file", type=click.Path(path_type=Path, dir_okay=False), help="The configuration.")
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), help="The data directory.")
@click.option("--roles", metavar="ROLE,..", help="What this process does, in place of `roles` in the configuration.")
@click.option("--metrics", metavar="HOST:PORT", help="Where it tells how it does, in place of [metrics] listen.")
def run(*, config_file: Path | None, data: Path | None, roles: str | None, metrics: str | None) -> None:
    """Meters this host, takes request events and keeps the books, until it is told to stop.

    What it does is named by `roles` in the configuration, or by --roles: the roles of a fleet share one file.
    SIGTERM and Ctrl-C store what is under way and stop; SIGHUP checks the configuration and takes it over if it is
    right.

    Sources of kind "recording" are played instead, on their own clock and at their speed, and the daemon ends when they
    have.

    Exit codes: 0 done or told to stop, 1 a role died, 2 wrong configuration, 3 log or store unavailable.
    """
    from monitor.cli.logging import configure
    from monitor.config.laid_over import laid_over
    from monitor.config.load import load_config

    def load() -> "Config":
        return laid_over(load_config(config_file, environ=os.environ), roles=roles, metrics=metrics)

    config = load()
    configure(config.logging.level, config.logging.format)
    folder = data or config.data.directory
    recordings = [source for source in config.sources if source.kind == "recording"]
    if not recordings:
        _live(config, load, folder, config_file)
    elif len(recordings) < len(config.sources):
        raise click.UsageError(
            "the configuration names recordings beside other sources; give each a daemon and a data folder of its own"
        )
    else:
        _play(config, folder)


def _live(config: "Config", load: "Callable[[], Config]", folder: Path, config_file: Path | None) -> None:
    from collectors.clock import SystemClock
    from collectors.errors import Broken
    from monitor.cli.logging import configure
    from monitor.daemon import Daemon, Signals
    from monitor.sd_notify import Notifier

    in_a_fleet = bool(config.kafka.bootstrap_servers)
    if not in_a_fleet and not {"collect", "ingest", "aggregate"} & set(config.roles):
        raise click.UsageError("none of the roles collect, ingest and aggregate is named: there is nothing to run")
    signals = Signals()
    signals.listen()
    with _house(folder, config) as house:
        daemon = Daemon(
            house,
            config,
            load,
            clock=SystemClock(),
            notifier=Notifier(),
            config_file=config_file,
            taken=lambda fresh: configure(fresh.logging.level, fresh.logging.format),
        )
        try:
            code = daemon.run(signals)
        except Broken as error:
            raise click.ClickException(str(error)) from error
    if code:
        raise SystemExit(code)


def _house(folder: Path, config: "Config") -> "LiveHouse | FleetHouse":
    if config.kafka.bootstrap_servers:
        from monitor.roles.fleet import FleetHouse

        return FleetHouse(folder, config)
    from monitor.roles.live import LiveHouse

    return LiveHouse(folder, config)


def _play(config: "Config", folder: Path) -> None:
    from collectors.recording import load_recording
    from collectors.replay import with_quiet_level
    from monitor.signals import stop_on_signals

    recordings = [source for source in config.sources if source.path is not None]
    stop = stop_on_signals()
    speed = min((source.speed or 1.0) for source in recordings)

    def loaded() -> "list[Recording]":
        return [
            with_quiet_level(load_recording(source.path, allowed_labels=config.accounting.label_keys))
            for source in recordings
            if source.path is not None
        ]

    if config.kafka.bootstrap_servers:
        _play_into_fleet(config, folder, loaded, speed, stop)
        return
    from monitor.roles.embedded import Embedded
    from monitor.service import replay_into

    with Embedded(folder, config) as house:
        outcome = replay_into(house, loaded(), speed=speed, should_stop=stop.is_set)
    whole = "to its end" if outcome.finished else "until it was told to stop; started again, it goes on from there"
    pace = "as fast as it goes" if math.isinf(speed) else f"at {speed:g}x"
    click.echo(f"replayed {whole}, {pace}: {outcome.progress.finals} host windows final", err=True)


def _play_into_fleet(
    config: "Config", folder: Path, loaded: "Callable[[], list[Recording]]", speed: float, stop: "threading.Event"
) -> None:
    from collectors.clock import SystemClock
    from monitor.roles.fleet import FleetHouse
    from monitor.roles.replay_collect import replay_readings

    if config.roles != ("collect",):
        raise click.UsageError('a recording is played into Kafka by role collect alone; set roles = ["collect"]')
    with FleetHouse(folder, config) as house:
        shipped = replay_readings(house, loaded(), speed=speed, clock=SystemClock(), should_stop=stop.is_set)
    whole = "to its end" if shipped.finished else "until it was told to stop; started again, it goes on from there"
    click.echo(f"replayed {whole}: {shipped.records} records at the brokers", err=True)
