"""The live daemon: one process that meters, takes events, accounts and answers until it is told to stop.

SIGTERM, SIGINT   drain and stop, in seconds
SIGHUP            the configuration is checked; a right one replaces the roles, a wrong one is told and left
systemd           READY after the first good reading, STATUS, WATCHDOG from the loop that watches the roles
"""

import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

import structlog

from collectors.clock import Clock
from collectors.errors import Broken
from monitor.config.advice import warnings
from monitor.config.problems import ConfigError
from monitor.config.sections import Config
from monitor.log.protocol import LogUnavailable
from monitor.metrics_server import MetricsServer
from monitor.roles.control import TermsChanged
from monitor.roles.running import RunningRoles
from monitor.sd_notify import Notifier
from monitor.selfmetrics import DaemonSnapshot
from monitor.selfwatch import SelfWatch
from monitor.store.protocol import StoreUnavailable

WATCH_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 10.0
READY_SECONDS: Final = 60.0
"""A host whose meters give nothing still takes events: systemd is told READY then, /readyz and STATUS say the truth."""
logger = structlog.get_logger()

Load = Callable[[], Config]


class House(Protocol):
    """What is open for as long as the process lives: a data folder, and what the roles of any configuration share."""

    @property
    def folder(self) -> Path: ...

    def begin(self, config: Config, *, host: str, clock: Clock, snapshot: Callable[[], DaemonSnapshot]) -> RunningRoles:
        """The roles of that configuration, not started yet."""
        ...


class Signals:
    """What the process was asked by signal. The last reload counts, a stop stays."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.reload = threading.Event()
        self.any = threading.Event()

    def listen(self) -> None:
        """Takes SIGTERM, SIGINT and SIGHUP from now on; in the main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda _number, _frame: self._ask(self.stop))
        signal.signal(signal.SIGHUP, self._hang_up)

    def _hang_up(self, _number: int, _frame: FrameType | None) -> None:
        self._ask(self.reload)

    def _ask(self, what: threading.Event) -> None:
        what.set()
        self.any.set()


class Daemon:
    """Keeps the roles of `load()`'s configuration running on one open data folder.

    `taken` is told of each new configuration that is in force. `run` returns the exit code: 0 told to stop, 1 a role
    died or got stuck.
    """

    def __init__(
        self,
        house: House,
        config: Config,
        load: Load,
        *,
        clock: Clock,
        notifier: Notifier,
        taken: Callable[[Config], None],
        config_file: Path | None = None,
    ) -> None:
        self._taken = taken
        self._house, self._config, self._load = house, config, load
        self._clock, self._notifier = clock, notifier
        named = None if config_file is None else str(config_file)
        self._watch = SelfWatch(clock, config_file=named, data_directory=str(house.folder))

    def run(self, signals: Signals) -> int:
        """Until it is told to stop or cannot go on. Raises Broken or TermsChanged where it cannot even begin."""
        threading.excepthook = _tell
        for warning in warnings(self._config):
            logger.warning(warning)
        metrics = MetricsServer(self._config.metrics.listen, self._watch.snapshot)
        metrics.start()
        roles = self._begin(self._config)
        try:
            while True:
                code = self._watch_roles(roles, signals)
                if code is not None:
                    return code
                roles = self._reload(roles)
        finally:
            self._notifier.stopping("stopping: what is under way is stored")
            roles.stop()
            metrics.stop()
            logger.info("stopped", final_windows=roles.aggregate.progress.finals if roles.aggregate else None)

    def _begin(self, config: Config) -> RunningRoles:
        host = config.host.name or socket.gethostname()
        roles = self._house.begin(config, host=host, clock=self._clock, snapshot=self._watch.snapshot)
        self._watch.roles = roles
        try:
            roles.start()
        except Broken:
            roles.stop()
            raise
        logger.info("running", roles=",".join(config.roles), host=host, data=str(self._house.folder))
        return roles

    def _watch_roles(self, roles: RunningRoles, signals: Signals) -> int | None:
        """Watches until something is to be done: an exit code, or None for a reload."""
        told_ready, rounds = False, 0
        while True:
            signals.any.wait(WATCH_SECONDS)
            signals.any.clear()
            if signals.stop.is_set():
                return 0
            if signals.reload.is_set():
                signals.reload.clear()
                return None
            if troubles := roles.troubles():
                logger.error("cannot go on; the log keeps what was taken", why="; ".join(troubles))
                self._notifier.status("; ".join(troubles))
                return 1
            self._watch.beat()
            self._notifier.watchdog()
            if not told_ready and (not roles.missing() or rounds * WATCH_SECONDS >= READY_SECONDS):
                told_ready = True
                self._notifier.ready(self._watch.line())
            if rounds % (STATUS_SECONDS / WATCH_SECONDS) == 0:
                self._notifier.status(self._watch.line())
            rounds += 1

    def _reload(self, roles: RunningRoles) -> RunningRoles:
        """New roles if the configuration is right, the old ones otherwise."""
        self._notifier.reloading("reloading")
        try:
            config = self._load()
            _check_reloadable(self._config, config)
        except (ConfigError, Broken) as error:
            logger.error("configuration not reloaded, the one in force stays", why=str(error))
            self._watch.reload_failed = str(error)
            self._notifier.ready(f"configuration not reloaded: {error}")
            return roles
        roles.stop()
        try:
            fresh = self._begin(config)
        except (Broken, TermsChanged, LogUnavailable, StoreUnavailable) as error:
            logger.error("configuration cannot be used, back to the one before", why=str(error))
            self._watch.reload_failed = str(error)
            return self._begin(self._config)
        self._config = config
        self._taken(config)
        self._watch.reload_failed = ""
        logger.info("configuration reloaded")
        return fresh


def _tell(error: threading.ExceptHookArgs) -> None:
    """A thread has ended by an error that nobody foresaw: a meter is then shown as broken, a role ends the process."""
    name = "" if error.thread is None else error.thread.name
    logger.error("a thread has ended by an error", thread=name, exc_info=error.exc_value)


def _check_reloadable(now: Config, wanted: Config) -> None:
    """What an open data folder and a listening socket cannot change under way. Raises Broken."""
    for name, before, after in (
        ("data.directory", now.data.directory, wanted.data.directory),
        ("metrics.listen", now.metrics.listen, wanted.metrics.listen),
        ("accounting", now.accounting, wanted.accounting),
        ("store", now.store, wanted.store),
        ("kafka", now.kafka, wanted.kafka),
    ):
        if before != after:
            raise Broken(f"[{name.partition('.')[0]}] changed ({name}); that takes a restart")
