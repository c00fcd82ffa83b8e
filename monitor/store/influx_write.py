"""Lines into InfluxDB: every answer of the server handled, no line lost in silence. In: lines. Out: a stored bucket.

2.x and 3.x are written by influxdb-client, synchronously, one joined text at a time; 1.x by its own /write.
"""

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, cast

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from collectors.clock import Clock
from monitor.store.influx_http import BAD_LINES, TOO_LARGE, Refused, Server, reason_in, retry_after
from monitor.store.line_protocol import nanoseconds
from monitor.store.protocol import StoreUnavailable

MOST_LINES: Final = 5_000
WRITE_SECONDS: Final = 10.0
Quarantine = Callable[[str, str], None]
"""Takes a line that the server will never store, and the server's reason."""


class Writer:
    """Any number of threads may use it."""

    def __init__(self, server: Server, quarantine: Quarantine, clock: Clock) -> None:
        self._server, self._quarantine, self._clock = server, quarantine, clock
        self._client: InfluxDBClient | None = None
        self._changing = threading.Lock()

    def write(self, bucket: str, lines: Sequence[str]) -> None:
        """Returns once the server has them, but for those given to quarantine. Raises StoreUnavailable."""
        for first in range(0, len(lines), MOST_LINES):
            self._store(bucket, lines[first : first + MOST_LINES], trusted=False)

    def close(self) -> None:
        """Lets go of the connections; never raises."""
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]

    def _store(self, bucket: str, lines: Sequence[str], *, trusted: bool) -> None:
        """A body that is refused is halved until the bad line stands alone; what is written twice is still one point.

        `trusted`: the server has been seen to take other lines into this bucket, so the fault is in these.
        """
        try:
            self._send(bucket, lines)
            return
        except Refused as refused:
            if refused.status in BAD_LINES and not trusted:
                self._check_bucket(bucket, refused)
            if len(lines) == 1 or _all_dropped(refused, len(lines)):
                for each in lines:
                    self._quarantine(each, refused.reason)
                return
        middle = len(lines) // 2
        self._store(bucket, lines[:middle], trusted=True)
        self._store(bucket, lines[middle:], trusted=True)

    def _check_bucket(self, bucket: str, refused: Refused) -> None:
        """Where even a line that is right is refused, the lines are not to blame and must not be given up."""
        if any(words in refused.reason for words in _LIMITS):
            raise StoreUnavailable(
                f"{self._server.url}: cannot write to bucket {bucket!r}: {refused.reason}; raise that limit there"
            ) from refused
        try:
            self._send(bucket, [f"probe ok=1i {nanoseconds(self._clock.now())}"])
        except Refused as again:
            raise self._server.unavailable("write to", f"bucket {bucket!r}", again) from again

    def _send(self, bucket: str, lines: Sequence[str]) -> None:
        text = "\n".join(lines)
        post = self._post_v1 if self._server.settings.api == "v1" else self._post_v2
        self._server.attempt("write to", f"bucket {bucket!r}", lambda: post(bucket, text))

    def _post_v1(self, bucket: str, text: str) -> None:
        self._server.request(
            "POST",
            "/write",
            timeout_seconds=WRITE_SECONDS,
            query={"db": bucket, "precision": "ns"},
            body=text.encode(),
            content_type="text/plain; charset=utf-8",
        )

    def _post_v2(self, bucket: str, text: str) -> None:
        client = self._client_of_the_token()
        try:
            client.write_api(write_options=SYNCHRONOUS).write(bucket, self._server.settings.org, text)
        except ApiException as error:
            status = cast("int | None", error.status)
            if not status:  # TLS: the client tells it so
                where = f"{self._server.url}: cannot write to bucket {bucket!r}"
                why = " ".join(str(error.reason).split())
                raise StoreUnavailable(f"{where}: {why}; name the authority in [influxdb] ca_file") from error
            headers: Mapping[str, str] = error.headers or {}
            raise Refused(status, reason_in(error.body or error.reason or ""), retry_after(headers)) from error

    def _client_of_the_token(self) -> InfluxDBClient:
        """A rotated token takes another client; what is under way with the old one ends, and its connections too."""
        with self._changing:
            if self._client is None or self._client.token != self._server.token:
                self.close()
                self._client = self._new_client()
            return self._client

    def _new_client(self) -> InfluxDBClient:
        settings = self._server.settings
        return InfluxDBClient(
            self._server.url,
            self._server.token,
            org=settings.org,
            timeout=round(WRITE_SECONDS * 1e3),
            ssl_ca_cert=str(settings.ca_file) if settings.ca_file else None,
        )


_DROPPED: Final = re.compile(r"dropped=(\d+)|dropped (\d+) points outside retention")
_LIMITS: Final = ("max-series-per-database limit exceeded", "max-values-per-tag limit exceeded")


def _all_dropped(refused: Refused, lines: int) -> bool:
    """Whether the server says that it took none of them: to try them one by one would tell nothing new."""
    told = _DROPPED.search(refused.reason)
    return refused.status != TOO_LARGE and told is not None and int(told[1] or told[2]) == lines
