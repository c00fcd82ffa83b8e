"""Posts to a webhook whose URL is a secret: read from its file at each sending, and never shown."""

import base64
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from collectors.errors import Broken, RetryLater
from collectors.http_page import KeptConnection, is_target

TIMEOUT_SECONDS: Final = 10.0


class NotDelivered(Exception):
    """The receiver has not taken it. Says why, without what is secret in the URL: its path, its query, its user."""


def post(url_file: Path, body: bytes, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
    """Returns once the receiver has answered 2xx; a redirect is not followed. Raises NotDelivered."""
    try:
        text = url_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise NotDelivered(f"{url_file}: cannot be read: {error}") from error
    where, target, headers = _parts(text, url_file)
    connection = KeptConnection(where, timeout_seconds=timeout_seconds, headers=headers)
    try:
        status = connection.post(target, body, "application/json").status
    except (RetryLater, Broken) as error:
        raise NotDelivered(str(error)) from error
    finally:
        connection.close()
    if 300 <= status < 400:
        raise NotDelivered(f"{where}: answers {status}, a redirect; write the address that it leads to into {url_file}")
    if not 200 <= status < 300:
        raise NotDelivered(f"{where}: answers {status}")


def _parts(text: str, url_file: Path) -> tuple[str, str, dict[str, str]]:
    """Scheme, host and port; path and query; headers. A user and password in the URL become basic authorisation."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
        parts = urlsplit("")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if parts.scheme not in ("http", "https") or not host or not text.isprintable() or not is_target(target):
        raise NotDelivered(f"{url_file}: holds no http or https URL, or more than one")
    shown = f"[{host}]" if ":" in host else host
    where = f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")
    if parts.username is None:
        return where, target, {}
    user = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return where, target, {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
