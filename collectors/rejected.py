"""RejectedInput: one input that was not used, as a source hands it on to be counted and listed."""

import hashlib
from dataclasses import dataclass

from collectors.errors import Rejected
from collectors.units import UnixSeconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedInput:
    """Identity is (source, position): seen again after a crash, it is counted once.

    `position` is where in the source it stands (a line, a partition and offset). `sha256` is the digest of the raw
    bytes; the bytes themselves are not kept, they may hold a prompt. `at` is the input's own time, None where it could
    not be read.
    """

    source: str
    position: str
    reason: str
    detail: str
    sha256: str
    at: UnixSeconds | None


def rejected_input(
    verdict: Rejected, *, source: str, position: str, raw: bytes, at: UnixSeconds | None = None
) -> RejectedInput:
    """The verdict on these raw bytes, as it is counted and listed."""
    digest = hashlib.sha256(raw).hexdigest()
    return RejectedInput(
        source=source, position=position, reason=verdict.reason, detail=verdict.detail, sha256=digest, at=at
    )
