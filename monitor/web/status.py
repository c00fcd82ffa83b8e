"""GET /v1/status: how the daemon does, and how far its books are."""

from collections.abc import Callable
from typing import Any

import msgspec

from collectors.clock import rfc3339
from monitor.core.questions import Principal, Restatement, Status, TooLate
from monitor.query import Query
from monitor.selfmetrics import DaemonSnapshot
from monitor.web.answers import Books, CameTooLate, MissingWindows, Restated, StatusAnswer
from monitor.web.parameters import Asked
from monitor.web.times import span, with_told


def answer(query: Query, principal: Principal, asked: Asked, *, daemon: Callable[[], DaemonSnapshot]) -> StatusAnswer:
    """Both; a team is shown how far the books are, and not what the daemon says of its hosts."""
    books = _books(query.status(principal, since=asked.fields["since"]))
    return StatusAnswer(daemon=None if principal.role == "team" else daemon(), books=books)


def _books(status: Status) -> Books:
    return Books(
        spans={name: span(*each) for name, each in status.spans.items()},
        final_until={host: rfc3339(each) for host, each in status.final_until.items()},
        provisional_until={host: rfc3339(each) for host, each in status.provisional_until.items()},
        rejected=status.rejected,
        restatements=None if status.restatements is None else tuple(Restated(**_told(e)) for e in status.restatements),
        too_late=None if status.too_late is None else tuple(CameTooLate(**_told(e)) for e in status.too_late),
        holes=tuple(
            MissingWindows(host=each.host, window=span(each.start, each.end), reason=each.reason)
            for each in status.holes
        ),
    )


def _told(correction: Restatement | TooLate) -> dict[str, Any]:
    return with_told(msgspec.structs.asdict(correction), "mark", "first_window", "last_window")
