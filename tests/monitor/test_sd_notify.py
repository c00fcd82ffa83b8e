"""The messages systemd gets, read from a real datagram socket."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitor.sd_notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The service manager's end, at a path."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5.0)
        yield receiver


def _notifier(manager: socket.socket) -> Notifier:
    return Notifier({"NOTIFY_SOCKET": manager.getsockname()})


def _message(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


def test_each_call_is_one_message_in_systemds_words(manager: socket.socket) -> None:
    """What was said and what it is about travel together."""
    notifier = _notifier(manager)
    notifier.ready("8 GPUs, 2 packages")
    notifier.status("books final until 08:00")
    notifier.watchdog()
    notifier.stopping()
    notifier.extend_timeout(2.5)
    assert [_message(manager) for _ in range(5)] == [
        ["READY=1", "STATUS=8 GPUs, 2 packages"],
        ["STATUS=books final until 08:00"],
        ["WATCHDOG=1"],
        ["STOPPING=1"],
        ["EXTEND_TIMEOUT_USEC=2500000"],
    ]
    assert notifier.lost == 0


def test_a_reload_and_its_moment_are_one_message(manager: socket.socket) -> None:
    """RELOADING=1 comes with the monotonic time in microseconds, between the moments before and after the call."""
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    _notifier(manager).reloading("reading /etc/wattribute/config.toml")
    after = time.clock_gettime(time.CLOCK_MONOTONIC)
    reloading, moment, status = _message(manager)
    assert (reloading, status) == ("RELOADING=1", "STATUS=reading /etc/wattribute/config.toml")
    name, _, microseconds = moment.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before * 1e6 - 1 <= int(microseconds) <= after * 1e6


def test_an_abstract_socket_is_reached() -> None:
    """A name that begins with @ stands for one with a zero byte (unix(7))."""
    name = f"wattribute-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{name}")
        receiver.settimeout(5.0)
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert receiver.recv(4096) == b"READY=1"


def test_a_line_end_in_a_status_begins_no_assignment(manager: socket.socket) -> None:
    """A text from elsewhere cannot say STOPPING=1."""
    _notifier(manager).status("GPU is lost\nSTOPPING=1")
    assert _message(manager) == ["STATUS=GPU is lost STOPPING=1"]


@pytest.mark.parametrize("address", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_socket_nothing_happens(address: dict[str, str]) -> None:
    """Started by hand, the daemon runs the same, and nothing counts as lost."""
    notifier = Notifier(address)
    notifier.ready("up")
    notifier.watchdog()
    assert (notifier.lost, notifier.watchdog_interval) == (0, None)


def test_a_socket_that_vanished_is_counted_and_raises_nothing(manager: socket.socket) -> None:
    """systemd replaced: the daemon goes on."""
    notifier = _notifier(manager)
    path = manager.getsockname()
    manager.close()
    notifier.watchdog()
    Path(path).unlink()
    notifier.watchdog()
    assert notifier.lost == 2


def test_a_manager_that_does_not_read_never_holds_the_daemon_for_long(manager: socket.socket) -> None:
    """Once its queue is full, messages are lost after a moment, and counted."""
    notifier = _notifier(manager)
    for _ in range(10_000):
        notifier.watchdog()
        if notifier.lost:
            break
    assert notifier.lost == 1


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000"}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 20.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_fed_at_a_third_of_its_time(environ: dict[str, str], interval: float | None) -> None:
    """60 s of patience are a sign of life every 20 s; another process's watchdog is not ours."""
    assert Notifier(environ).watchdog_interval == interval
