"""GET /v1/allocation: who used what, in OpenCost's words."""

import msgspec

from collectors.clock import rfc3339
from monitor.core.questions import AllocationPage, AllocationQuery, Principal, StepLine
from monitor.query import Query
from monitor.web.answers import AllocationAnswer, Line
from monitor.web.parameters import Asked
from monitor.web.times import span, told


def answer(query: Query, principal: Principal, asked: Asked) -> AllocationAnswer:
    """The page. Raises what the gate raises."""
    fields = dict(asked.fields)
    if fields.pop("accumulate"):
        fields["step"] = None
    page = query.allocation(principal, msgspec.convert(fields, AllocationQuery))
    return AllocationAnswer(
        window=span(page.query.start, page.query.end),
        aggregate=page.query.by,
        step_seconds=page.query.step,
        share_idle=page.query.share_idle,
        lines=tuple(_line(page, each) for each in page.lines),
        totals=page.totals,
        idle_devices=page.idle_devices,
        factors=page.factors,
        final_until=told(page.final_until),
        next=page.next,
    )


def _line(page: AllocationPage, step: StepLine) -> Line:
    measures = msgspec.structs.asdict(step.line)
    properties = dict(zip(page.query.by, measures.pop("key"), strict=True))
    return Line(start=rfc3339(step.start), end=rfc3339(step.end), properties=properties, **measures)
