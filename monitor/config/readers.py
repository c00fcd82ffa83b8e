"""From the text of a value to the value its type wants, by the reader that the type names. Raises Faulty."""

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from monitor.config.problems import Faulty, shown
from monitor.config.quantities import (
    delay_seconds,
    duration_seconds,
    host_and_port,
    http_url,
    label_key,
    plain_name,
    size_bytes,
    speed_factor,
)
from monitor.config.zones import zone_key

Reader = Callable[[str, Path], object]
"""(text, folder of the file it stands in) -> value."""


def local_path(text: str, folder: Path) -> Path | None:
    """The path, a relative one from `folder`; "" is None."""
    if not text.isprintable():
        raise Faulty(f"{shown(text)} is not a path; it holds characters that cannot be printed")
    return folder / text if text else None


def secret_file(text: str, folder: Path) -> Path | None:
    """The path of a file that can be read now; what is in it stays there."""
    path = local_path(text, folder)
    if path is None:
        return None
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Faulty(f"{shown(text)} is not a file; name a file that holds the secret and nothing else")
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise Faulty(
            f"{shown(text)} cannot be read ({error.strerror}); "
            "put the secret into that file and let the daemon's user read it"
        ) from None
    return path


def _anywhere(reader: Callable[[str], object]) -> Reader:
    return lambda text, _folder: reader(text)


READERS: Final[Mapping[str, Reader]] = {
    "duration": _anywhere(duration_seconds),
    "delay": _anywhere(delay_seconds),
    "size": _anywhere(size_bytes),
    "speed": _anywhere(speed_factor),
    "name": _anywhere(plain_name),
    "optional_name": _anywhere(lambda text: text and plain_name(text)),
    "label_key": _anywhere(label_key),
    "zone": _anywhere(zone_key),
    "address": _anywhere(host_and_port),
    "url": _anywhere(http_url),
    "path": local_path,
    "secret_file": secret_file,
}
EXAMPLES: Final[Mapping[str, str]] = {"duration": '"10s"', "delay": '"10s"', "size": '"10GiB"'}
"""What to write where a number came without its unit."""
