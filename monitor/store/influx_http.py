"""One InfluxDB server: its address, its token, what its refusals mean. In: requests. Out: answers, StoreUnavailable.

The token is read from its file, and again when the server refuses it, so that rotating it needs no restart.
"""

import threading
from collections.abc import Callable, Collection, Mapping
from typing import Final, TypeVar
from urllib.parse import urlencode

import msgspec
import urllib3

from monitor.config.output_sections import InfluxDb
from monitor.store.protocol import StoreBusy, StoreUnavailable

UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
NOT_FOUND: Final = 404
TOO_LARGE: Final = 413
BAD_LINES: Final = (400, 422)
BUSY: Final = (429, 503)
_GONE: Final = "database not found"
"""With a 500, where 2.x has only just deleted the bucket."""
_T = TypeVar("_T")


class Refused(Exception):
    """The server answered, and not with success."""

    def __init__(self, status: int, reason: str, retry_after_seconds: float | None = None) -> None:
        super().__init__(f"{status} {reason}")
        self.status, self.reason, self.retry_after_seconds = status, reason, retry_after_seconds


class Server:
    """Any number of threads may use it. `do` is what to try, `where` the bucket that a message names."""

    def __init__(self, settings: InfluxDb) -> None:
        self.settings = settings
        self.url = settings.url.rstrip("/")
        self._token = _read_token(settings)
        self._lock = threading.Lock()
        ca_certs = str(settings.ca_file) if settings.ca_file else None
        self._pool = urllib3.PoolManager(maxsize=8, retries=False, ca_certs=ca_certs)

    @property
    def token(self) -> str:
        """As it was when last read."""
        return self._token

    def request(
        self,
        method: str,
        path: str,
        *,
        timeout_seconds: float,
        query: Mapping[str, str] | None = None,
        body: bytes | None = None,
        content_type: str = "application/json",
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """A good answer; with `stream` its body is still to be read. Raises Refused, and urllib3's errors."""
        answer = self._pool.request(
            method,
            f"{self.url}{path}" + (f"?{urlencode(query)}" if query else ""),
            body=body,
            headers=self._headers(content_type),
            timeout=urllib3.Timeout(connect=min(timeout_seconds, 5.0), read=timeout_seconds),
            preload_content=not stream,
            redirect=False,
        )
        if answer.status // 100 != 2:
            raise Refused(answer.status, reason_in(answer.data), retry_after(answer.headers))
        return answer

    def attempt(
        self, doing: str, where: str, do: Callable[[], _T], *, passed_on: Collection[int] = (*BAD_LINES, TOO_LARGE)
    ) -> _T:
        """What `do` returns; tried once more where the token was refused and its file holds another by now.

        Raises StoreUnavailable, StoreBusy where the server asks for patience, and Refused for the statuses that are
        the caller's to judge: those about the body, unless told otherwise.
        """
        try:
            try:
                return do()
            except Refused as refused:
                if refused.status != UNAUTHORIZED or not self._token_changed():
                    raise
                return do()
        except Refused as refused:
            if refused.status in passed_on:
                raise
            raise self.unavailable(doing, where, refused) from refused
        except urllib3.exceptions.HTTPError as error:
            raise StoreUnavailable(f"{self.url}: cannot {doing} {where}: {_network_text(error, doing)}") from error

    def unavailable(self, doing: str, where: str, refused: Refused) -> StoreUnavailable:
        """The refusal as what the roles react to, with what mends it."""
        org = f" of org {self.settings.org!r}" if self.settings.org else ""
        text = f"{self.url}: cannot {doing} {where}{org}: {refused.status} {refused.reason}"
        if refused.status in BUSY:
            return StoreBusy(f"{text}; it is tried again", retry_after_seconds=refused.retry_after_seconds)
        if refused.status == UNAUTHORIZED:
            return StoreUnavailable(f"{text}; put a valid token into {self._token_place()}: it is read again")
        if refused.status == FORBIDDEN:
            return StoreUnavailable(f"{text}; the token in {self._token_place()} needs the right to {doing} it")
        if refused.status == NOT_FOUND and "organization" in refused.reason:
            return StoreUnavailable(f"{text}; correct [influxdb] org")
        if refused.status == NOT_FOUND or _GONE in refused.reason:
            return StoreUnavailable(f"{text}; run `wattribute store setup`, or correct [influxdb] org and bucket")
        return StoreUnavailable(text)

    def close(self) -> None:
        """Lets go of the connections; never raises."""
        self._pool.clear()

    def _token_place(self) -> str:
        return str(self.settings.token_file) if self.settings.token_file else "[influxdb] token_file"

    def _token_changed(self) -> bool:
        with self._lock:
            try:
                token = _read_token(self.settings)
            except StoreUnavailable:
                return False  # the old one was refused: that is what has to be told
            changed, self._token = token != self._token, token
        return changed

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Content-Type": content_type}
        if self._token and self.settings.api == "v1" and ":" in self._token:
            headers |= urllib3.make_headers(basic_auth=self._token)
        elif self._token:
            headers["Authorization"] = f"Token {self._token}"
        return headers


def reason_in(body: bytes | str) -> str:
    """What an answer of the server says, on one line and of a length that a log can bear."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body
    try:
        told = msgspec.json.decode(text)
    except msgspec.DecodeError:
        told = text
    if isinstance(told, dict):
        told = told.get("message") or told.get("error") or text
    return " ".join(str(told).split())[:500]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that the server asks to wait; None where it names none. A date instead of seconds counts as none."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None


def _read_token(settings: InfluxDb) -> str:
    if settings.token_file is None:
        return ""
    try:
        return settings.token_file.read_text().strip()
    except OSError as error:
        raise StoreUnavailable(f"{settings.token_file}: cannot read the token of InfluxDB: {error.strerror}") from error


def _network_text(error: urllib3.exceptions.HTTPError, doing: str) -> str:
    if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
        return "nothing answers there; start the server, or correct [influxdb] url"
    if isinstance(error, urllib3.exceptions.TimeoutError):
        sent = "; what was sent may still arrive, writing it again does no harm" if doing == "write to" else ""
        return f"no answer in time{sent}"
    if isinstance(error, urllib3.exceptions.SSLError):
        return f"{error}; name the certificate's authority in [influxdb] ca_file"
    return f"the connection broke: {error}"
