"""Role control's alerts: the rules are judged on the books, and who is to know is told; neither waits for the other.

store --> query --> judge --> alerts.json --> tell --> webhooks
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from collectors.clock import Clock, monotonic
from monitor.alerts.evaluate import evaluate
from monitor.alerts.kept import Kept, UnreadableAlerts, load_kept, save_kept
from monitor.alerts.notices import Notice, body, due
from monitor.alerts.shown import snapshots
from monitor.alerts.webhook import NotDelivered, post
from monitor.config.output_sections import Alert
from monitor.config.sections import Config
from monitor.core.questions import BadQuery, Principal
from monitor.query import Query
from monitor.roles.embedded import ALERTS_FILE
from monitor.roles.schedule import Schedule
from monitor.selfmetrics import AlertSnapshot
from monitor.store.protocol import Store, StoreUnavailable

JUDGE_SECONDS: Final = 30.0
TELL_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 5.0
FIRST_RETRY_SECONDS: Final = 10.0
LONGEST_RETRY_SECONDS: Final = 600.0
_ASKER: Final = Principal(name="alerts", role="read")
logger = structlog.get_logger()


class _Receiver(msgspec.Struct, kw_only=True):
    """How posting for one rule went since the start. `next_at` is on the clock that never steps."""

    sent: int = 0
    failed: int = 0
    failed_in_a_row: int = 0
    next_at: float = 0.0
    detail: str = ""


class Alerting:
    """Judges and tells when it is asked to, while it is the leader. Begins with what was known when it last ran."""

    def __init__(
        self,
        store: Store,
        config: Config,
        *,
        folder: Path,
        host: str,
        clock: Clock,
        is_leader: Callable[[], bool] = lambda: True,
    ) -> None:
        self._query = Query(store, rejected=dict)
        self._rules, self._clock, self._is_leader = config.alerts, clock, is_leader
        self._window_seconds = config.accounting.window_seconds
        self._external_url = external_url(config.web.listen, host)
        self._file = folder / ALERTS_FILE
        self._changing, self._judging = threading.Lock(), threading.Lock()
        self._closed = False
        self._waits_for = ""
        self._receivers = {rule.name: _Receiver() for rule in self._rules}
        self._kept = self._load()

    def close(self) -> None:
        """Waits for the judging under way, so that the store can be closed; what is told meanwhile is not kept."""
        with self._changing:
            self._closed = True
        if self._judging.acquire(timeout=CLOSE_SECONDS):
            self._judging.release()

    def judge(self) -> None:
        """Judges the windows that are new."""
        with self._judging:
            if self._is_leader() and not self._closed:
                self._judge()

    def _judge(self) -> None:
        before = self._kept
        try:
            found = evaluate(
                self._query,
                _ASKER,
                self._rules,
                before,
                now=self._clock.now(),
                window_seconds=self._window_seconds,
            )
        except (StoreUnavailable, BadQuery) as error:
            self._say(str(error))
            return
        self._say("")
        if found is not before:
            self._keep(found.with_all_told)

    def tell(self) -> None:
        """Posts for each rule whose receiver knows less than it should, unless it failed a moment ago."""
        if not self._is_leader():
            return
        for rule in self._rules:
            notices = due(self._kept.alerts_of(rule).values(), self._clock.now())
            if notices and monotonic() >= self._receivers[rule.name].next_at:
                self._post(rule, notices)

    def snapshots(self) -> tuple[AlertSnapshot, ...]:
        """How the rules and their receivers do."""
        return tuple(
            msgspec.structs.replace(
                each,
                sent=self._receivers[each.name].sent,
                failed=self._receivers[each.name].failed,
                detail=self._waits_for or self._receivers[each.name].detail,
            )
            for each in snapshots(self._rules, self._kept)
        )

    def _post(self, rule: Alert, notices: list[Notice]) -> None:
        receiver = self._receivers[rule.name]
        try:
            post(rule.webhook_url_file, body(rule, notices, external_url=self._external_url))
        except NotDelivered as error:
            receiver.failed += 1
            receiver.failed_in_a_row += 1
            pause = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** (receiver.failed_in_a_row - 1))
            receiver.next_at = monotonic() + pause
            receiver.detail = f"could not be told ({len(notices)}): {error}"
            logger.warning(
                "alerts could not be told; tried again", alert=rule.name, why=str(error), after=f"{pause:g} s"
            )
            return
        receiver.sent += 1
        receiver.failed_in_a_row, receiver.detail = 0, ""
        for notice in notices:
            logger.info("alert told", alert=rule.name, status=notice.status, instance=",".join(notice.instance))
        told = {notice.instance: notice.told(self._clock.now()) for notice in notices}
        self._keep(lambda now: now.with_told(rule.name, told))

    def _keep(self, change: Callable[[Kept], Kept]) -> None:
        with self._changing:
            if self._closed:
                return
            self._kept = change(self._kept)
            try:
                save_kept(self._file, self._kept)
            except OSError as error:
                logger.error(
                    "alerts are not kept; a restart would tell them again", file=str(self._file), why=str(error)
                )

    def _load(self) -> Kept:
        try:
            return load_kept(self._file)
        except UnreadableAlerts as error:
            logger.warning("alerts begin anew; what fires is told again", why=str(error))
            return Kept()

    def _say(self, why: str) -> None:
        if why and not self._waits_for:
            logger.error("alerts are not judged until the books can be read again", why=why)
        elif self._waits_for and not why:
            logger.info("alerts are judged again")
        self._waits_for = why


class AlertingRole:
    """Judges and tells between `start` and `stop`, each in a thread of its own. Closes the store that it is given."""

    def __init__(self, alerting: Alerting, store: Store) -> None:
        self._alerting, self._store = alerting, store
        self._schedule = Schedule({"judging": 1, "webhooks": 1})
        self._schedule.every(JUDGE_SECONDS, alerting.judge, executor="judging")
        self._schedule.every(TELL_SECONDS, alerting.tell, executor="webhooks")

    def start(self) -> None:
        """From now on."""
        self._schedule.start()

    def stop(self) -> None:
        """No further job is begun."""
        self._schedule.stop()
        self._alerting.close()
        self._store.close()


def external_url(listen: str, host: str) -> str:
    """Where others reach the API: the host's name where it listens on all addresses."""
    name, _, port = listen.rpartition(":")
    return f"http://{host if name in ('0.0.0.0', '[::]') else name}:{port}"
