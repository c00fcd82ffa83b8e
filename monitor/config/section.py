"""What every section is made of: frozen records whose field names carry the unit and whose keys do not.

The field `window_seconds` is written as `window = "10s"`, `max_size_bytes` as `max_size = "10GiB"`. A type names the
reader (convert.py) that turns its text into a value; sections built in code are given the values themselves.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from monitor.config.problems import KeyPath

Duration = Annotated[float, Meta(extra={"reader": "duration"})]
Delay = Annotated[float, Meta(extra={"reader": "delay"})]
Size = Annotated[int, Meta(extra={"reader": "size"})]
Speed = Annotated[float, Meta(gt=0, extra={"reader": "speed"})]
Name = Annotated[str, Meta(extra={"reader": "name"})]
OptionalName = Annotated[str, Meta(extra={"reader": "optional_name"})]
LabelKey = Annotated[str, Meta(extra={"reader": "label_key"})]
Zone = Annotated[str, Meta(extra={"reader": "zone"})]
Address = Annotated[str, Meta(extra={"reader": "address"})]
Url = Annotated[str, Meta(extra={"reader": "url"})]
LocalPath = Annotated[Path, Meta(extra={"reader": "path"})]
"""A file or folder; a relative one is meant from the folder of the file it is written in."""
OptionalPath = Annotated[Path | None, Meta(extra={"reader": "path"})]
SecretFile = Annotated[Path | None, Meta(extra={"reader": "secret_file"})]
"""A file that holds one secret. It has to be there and readable when the configuration is loaded; "" is none."""
RequiredSecretFile = Annotated[Path, Meta(extra={"reader": "secret_file"})]
Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]


def key_of(field: str) -> str:
    """The key of a field: its name without the unit that the text carries itself."""
    return field.removesuffix("_seconds").removesuffix("_bytes")


class Section(msgspec.Struct, frozen=True, kw_only=True, rename=key_of):
    """A table of config.toml. `identity` is the key that no two tables of one array may share."""

    identity: ClassVar[str] = ""

    def faults(self) -> Iterator[tuple[KeyPath, str]]:
        """What is wrong between keys that are each right: (key within this table, what to do)."""
        yield from ()
