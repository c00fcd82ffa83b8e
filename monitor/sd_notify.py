"""What the daemon tells systemd, by its notification protocol (sd_notify(3)): datagrams to the socket of NOTIFY_SOCKET.

Outside systemd there is no such socket and nothing is sent. A lost message is counted and never disturbs the daemon:
systemd itself acts on silence, when the watchdog's time is over.
"""

import os
import socket
from collections.abc import Mapping
from typing import Final

from collectors.clock import monotonic

MICROSECONDS: Final = 1_000_000
# systemd's queue holds some ten messages: a busy manager gets a moment, one that hangs does not hold up the daemon.
SEND_SECONDS: Final = 0.5


class Notifier:
    """Tells the service manager how the daemon does. May be called from any thread.

    `environ` is the process's environment. `lost` counts messages that could not be delivered.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = _socket_address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval = _watchdog_interval(environ)
        self.lost = 0

    def ready(self, status: str = "") -> None:
        """The daemon does its work; also the end of a reload."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows."""
        self._send(_status(text))

    def watchdog(self) -> None:
        """Still alive. To be sent every `watchdog_interval` seconds by the loop whose life matters."""
        self._send("WATCHDOG=1")

    def reloading(self, status: str = "") -> None:
        """A reload begins; `ready` ends it, whether the new configuration was taken or not.

        Both lines in one message: apart, a manager of Type=notify-reload takes the first for an incomplete one.
        """
        self._send("RELOADING=1", f"MONOTONIC_USEC={int(monotonic() * MICROSECONDS)}", _status(status))

    def stopping(self, status: str = "") -> None:
        """The stop begins."""
        self._send("STOPPING=1", _status(status))

    def extend_timeout(self, duration_seconds: float) -> None:
        """Asks for so much more time from now, while starting, reloading or stopping; systemd kills after it."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(duration_seconds * MICROSECONDS)}")

    def _send(self, *lines: str) -> None:
        if self._address is None:
            return
        message = "\n".join(line for line in lines if line).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.settimeout(SEND_SECONDS)
                channel.sendto(message, self._address)
        except OSError:  # the socket is gone, or full: systemd restarts, or is busy
            self.lost += 1


def _socket_address(text: str) -> str | None:
    """A path, or "@name" for a name of the abstract namespace; any other kind (vsock:) is none of a service's."""
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else None


def _watchdog_interval(environ: Mapping[str, str]) -> float | None:
    """Seconds between two signs of life, None where none are awaited. WATCHDOG_USEC=60000000 is every 20 s.

    A third of the time that systemd waits: sd_watchdog_enabled(3) advises less than half. WATCHDOG_PID names the
    process that is watched; a child inherits the variable and is not meant.
    """
    microseconds = environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdecimal() or int(microseconds) == 0:
        return None
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / MICROSECONDS / 3


def _status(text: str) -> str:
    """STATUS= is one line; a line end in it would begin another assignment."""
    return f"STATUS={' '.join(text.splitlines())}" if text else ""
