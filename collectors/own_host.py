"""What reaches this very host: which network a process is in, and the names and addresses of its interfaces."""

import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import psutil


def network_of(procfs: Path, process: int | str = "self") -> int | None:
    """The network namespace of a process: two are in one if their numbers are the same. None where it is not told.

    The number is that of a file which each namespace has once. /proc/PID/ns/net, which names the namespace outright,
    is shown to a process's own user and to root alone.
    """
    try:
        return os.stat(f"{procfs}/{process}/net/dev").st_ino
    except OSError:
        return None


def own_names() -> frozenset[str]:
    """The addresses of all interfaces, as ipaddress writes them, and the host's name, in small letters."""
    addresses = (each.address.partition("%")[0] for told in psutil.net_if_addrs().values() for each in told)
    name = socket.gethostname().lower()
    return frozenset({*map(plain_address, addresses), name, name.partition(".")[0]} - {""})


def is_own(host: str, names: Callable[[], frozenset[str]]) -> bool:
    """Whether that is this host; `names` are asked only where it is not loopback. "127.0.1.1" and "localhost" are."""
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost" or host.lower() in names()
    return address.is_loopback or address.is_unspecified or str(address) in names()


def plain_address(text: str) -> str:
    """An address in its one shortest form: "FE80:0::1" is "fe80::1"; what is none (a link's) stays as it is."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text
