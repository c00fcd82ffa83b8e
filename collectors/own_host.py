"""What reaches this very host: which network a process is in, and the names and addresses of its interfaces."""

import os
import re
import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Final

_LOCAL: Final = re.compile(r"\|-- ([\d.]+)\n +/32 host LOCAL")
_FOUR: Final = re.compile("[0-9a-f]{4}")


def network_of(procfs: Path, process: int | str = "self") -> int | None:
    """The network namespace of a process: two are in one if their numbers are the same. None where it is not told.

    The number is that of a file which each namespace has once. /proc/PID/ns/net, which names the namespace outright,
    is shown to a process's own user and to root alone.
    """
    try:
        return os.stat(f"{procfs}/{process}/net/dev").st_ino
    except OSError:
        return None


def own_names(procfs: Path) -> frozenset[str]:
    """The addresses of all interfaces, as `ipaddress` writes them, and the host's name, in small letters.

    From <procfs>/self/net: the system's own call for it asks by netlink, which the units do not allow. What cannot be
    read is not known.
    """
    name = socket.gethostname().lower()
    told = _LOCAL.findall(_text(procfs / "self/net/fib_trie"))
    told += [":".join(_FOUR.findall(line[:32])) for line in _text(procfs / "self/net/if_inet6").splitlines()]
    addresses = {str(address) for text in told if (address := _address(text)) is not None}
    return frozenset(addresses | {name, name.partition(".")[0]} - {""})


def _text(path: Path) -> str:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def is_own(host: str, names: Callable[[], frozenset[str]]) -> bool:
    """Whether that is this host; `names` are asked only where it is not loopback. "127.0.1.1" and "localhost" are."""
    address = _address(host)
    if address is None:
        return host == "localhost" or host.lower() in names()
    return address.is_loopback or address.is_unspecified or str(address) in names()


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """None for what is none, as a name or a link's address; "::ffff:10.0.0.5" is 10.0.0.5."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address if isinstance(address, IPv4Address) else address.ipv4_mapped or address
