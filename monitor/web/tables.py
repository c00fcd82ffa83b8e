"""The parameters of each address: parsing, the OpenAPI document and docs/api.md all come from these tables."""

from typing import Any, Final, get_args

from collectors.units import UnixSeconds
from monitor.config.quantities import duration_seconds
from monitor.core.allocation_lines import ShareIdle
from monitor.core.questions import MOST_LINES
from monitor.web import texts
from monitor.web.parameters import Parameter

_TEXT: Final = {"type": "string"}
_TRUTH: Final = {"type": "string", "enum": ["true", "false"]}
_NUMBER: Final = {"type": "integer", "minimum": 1, "maximum": MOST_LINES}


def _window(text: str, now: UnixSeconds) -> dict[str, Any]:
    start, end = texts.interval(text, now)
    return {"start": start, "end": end}


def _hosts(text: str, _now: UnixSeconds) -> dict[str, Any]:
    found = texts.filters(text)
    for name in found:
        if name != "host":
            raise ValueError(f'windows have no {name!r}; only host, as in host:"node-1"')
    return {"hosts": found.get("host", frozenset())}


def _share_idle(text: str, _now: UnixSeconds) -> dict[str, Any]:
    if text == "true":
        raise ValueError("'true' does not say among whom: write host, fleet or owner")
    if text not in get_args(ShareIdle):
        raise ValueError(f"{text!r} is none of {', '.join(get_args(ShareIdle))}")
    return {"share_idle": text}


def _flag(name: str, field: str, default: str, about: str) -> Parameter:
    return Parameter(
        name=name,
        about=about,
        read=lambda text, _now: {field: texts.truth(text)},
        schema=_TRUTH,
        default=default,
    )


def _filter(about: str, example: str) -> Parameter:
    return Parameter(
        name="filter",
        about=f'{about} In OpenCost\'s form: : with quoted values, "," for alternatives, "+" (in a URL %2B) to join.',
        read=lambda text, _now: {"filters": texts.filters(text)},
        schema=_TEXT,
        default="",
        example=example,
    )


def _limit(default: int) -> Parameter:
    return Parameter(
        name="limit",
        about="The longest page.",
        read=lambda text, _now: {"limit": texts.whole_number(text)},
        schema=_NUMBER,
        default=str(default),
    )


WINDOW: Final = Parameter(
    name="window",
    about=f"Which interval: {texts.WINDOW_FORMS}. The windows that start in it are counted, each of them whole.",
    read=_window,
    schema=_TEXT,
    default="24h",
    example="7d",
)
AFTER: Final = Parameter(
    name="after",
    about="The `next` of the page before. Ask with a window of two moments: one that moves with now moves the pages.",
    read=lambda text, _now: {"after": text},
    schema=_TEXT,
)
PROVISIONAL: Final = _flag(
    "includeProvisional", "include_provisional", "true", "Whether windows that may still change are counted."
)

ALLOCATION: Final = (
    WINDOW,
    Parameter(
        name="aggregate",
        about="The dimensions of a line, with commas: model, team, deployment, host, device, kind, label:KEY.",
        read=lambda text, _now: {"by": texts.names(text)},
        schema=_TEXT,
        default="model,team",
        example="team,label:use_case",
    ),
    Parameter(
        name="step",
        about="Lines for each step of this length (15m, 1h, 1d), counted from the start of the window.",
        read=lambda text, _now: {"step": duration_seconds(text)},
        schema=_TEXT,
        example="1h",
    ),
    _flag("accumulate", "accumulate", "false", "true adds the steps up to one: as if no step were given."),
    _flag("includeIdle", "include_idle", "false", "Whether idle has lines of its own."),
    _flag("includeUnattributed", "include_unattributed", "true", "Whether what no request accounts for has lines."),
    PROVISIONAL,
    Parameter(
        name="shareIdle",
        about="Who is charged with idle: nobody (false), those who used the host, the fleet, or the device's owner.",
        read=_share_idle,
        schema={"type": "string", "enum": list(get_args(ShareIdle))},
        default="false",
    ),
    _filter("Chooses lines; only a filter on host narrows the books themselves.", 'team:"search"+model:"m"'),
    _limit(MOST_LINES),
    AFTER,
)
WINDOWS: Final = (
    WINDOW,
    PROVISIONAL,
    Parameter(
        name="filter",
        about='Only these hosts: host:"node-1","node-2".',
        read=_hosts,
        schema=_TEXT,
        default="",
        example='host:"node-1"',
    ),
    _limit(MOST_LINES),
    AFTER,
)
REQUESTS: Final = (
    WINDOW,
    _filter("On host, namespace, request_id, attempt, model, team, deployment.", 'team:"search"'),
    _limit(1_000),
    AFTER,
)
STATUS: Final = (
    Parameter(
        name="since",
        about="From when on restatements are listed: how long ago (7d), RFC 3339 with its zone, or unix seconds.",
        read=lambda text, now: {"since": texts.since(text, now)},
        schema=_TEXT,
        default="7d",
    ),
)
