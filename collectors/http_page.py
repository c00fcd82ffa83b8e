"""GET and POST over one connection that is kept open, with a deadline for the whole answer and a limit to its size.

http.client is enough for one page a second, and lean: importing it takes 4 MB, httpx2 takes 9 MB, out of 60 MB for the
whole of role collect. What http.client lacks is a deadline: its timeout holds for each receive, so that a peer that
sends a byte a second holds its reader for ever.
"""

import http.client
import io
import socket
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec

from collectors.clock import monotonic
from collectors.errors import Broken, RetryLater

if TYPE_CHECKING:
    import ssl

MAX_BODY_BYTES: Final = 8 * 2**20
_CHUNK_BYTES: Final = 2**16
_MAX_TARGET_LENGTH: Final = 2_000


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: its status and its whole body."""

    status: int
    body: bytes


class KeptConnection:
    """Asks one server. Not thread-safe. `url` is scheme://host:port; its path, if any, is what `get()` asks for.

    Every failure to get an answer is RetryLater, with the address and what happened; a certificate that is not trusted
    and an address that makes no sense are Broken.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
        tls: "ssl.SSLContext | None" = None,
    ) -> None:
        self.url: Final = url
        self._timeout: Final = timeout_seconds
        self._headers: Final = {"Accept-Encoding": "identity", "User-Agent": "wattribute", **(headers or {})}
        self._tls: Final = tls
        self._open: http.client.HTTPConnection | None = None

    def get(self, target: str | None = None) -> Page:
        """The answer, whatever its status. A kept connection that the server has closed meanwhile is opened anew."""
        kept = self._open is not None
        self._connected()
        parts = urlsplit(self.url)
        target = target or (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not is_target(target):
            raise RetryLater(f"{self.url}: {target[:80]!r} is no path that can be asked for")
        try:
            return self._answer("GET", target)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if not kept:
                raise RetryLater(f"{self.url}: {_said(error)}") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from error
        try:
            return self._answer("GET", target)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from error

    def post(self, target: str, body: bytes, content_type: str) -> Page:
        """The answer, whatever its status; sent once, since nobody knows what became of a post without an answer.

        A target that `is_target` does not like is not sent: ValueError, without the target, which may be a secret.
        """
        if not is_target(target):
            raise ValueError("is no path that can be posted to")
        try:
            return self._answer("POST", target, body, {"Content-Type": content_type})
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(error) from error

    def close(self) -> None:
        """Lets go of the connection; the next `get` opens another."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _answer(
        self, method: str, target: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Page:
        deadline = monotonic() + self._timeout
        connection = self._connected()
        if connection.sock is not None:
            connection.sock.settimeout(self._timeout)
        connection.response_class = partial(_Response, deadline)  # type: ignore[assignment]
        connection.request(method, target, body, headers={**self._headers, **(headers or {})})
        with connection.getresponse() as response:
            return Page(status=response.status, body=_whole_body(response))

    def _connected(self) -> http.client.HTTPConnection:
        if self._open is None:
            self._open = self._new_connection()
        return self._open

    def _new_connection(self) -> http.client.HTTPConnection:
        try:
            parts = urlsplit(self.url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Broken(f"{self.url!r} is no address: {error}") from error
        if not host or parts.scheme not in {"http", "https"}:
            raise Broken(f"{self.url!r} is no address; write http://HOST:PORT/PATH or https://HOST/")
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def _failed(self, error: Exception) -> RetryLater | Broken:
        import ssl

        self.close()
        if isinstance(error, ssl.SSLCertVerificationError):
            return Broken(f"{self.url}: its certificate is not trusted: {error.verify_message}")
        if isinstance(error, TimeoutError):
            return RetryLater(f"{self.url}: no whole answer within {self._timeout:g} s")
        return RetryLater(f"{self.url}: {_said(error)}")


def is_target(target: str) -> bool:
    """Whether it can stand in a request as its path and query."""
    if len(target) > _MAX_TARGET_LENGTH or not target.startswith("/") or not target.isascii():
        return False
    return target.isprintable() and " " not in target


class _Receiving(io.RawIOBase):
    """A socket's stream that stops at a deadline, however steadily the peer trickles."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline
        # The socket's own stream keeps the socket open until it is closed, which http.client relies on.
        self._stream = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left_seconds = self._deadline - monotonic()
        if left_seconds <= 0:
            raise TimeoutError("the deadline has passed")
        self._sock.settimeout(left_seconds)
        return self._stream.readinto(buffer)

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Deadlined:
    """What http.client asks of a socket: a stream to read the answer from."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._sock, self._deadline = sock, deadline

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Receiving(self._sock, self._deadline))


class _Response(http.client.HTTPResponse):
    def __init__(self, deadline: float, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(_Deadlined(sock, deadline), *arguments, **options)  # type: ignore[arg-type]


def _whole_body(response: http.client.HTTPResponse) -> bytes:
    body = bytearray()
    while chunk := response.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise http.client.HTTPException(f"its answer is larger than {MAX_BODY_BYTES >> 20} MiB")
    return bytes(body)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
