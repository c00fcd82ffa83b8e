"""GET /v1/windows: the books of each host and window."""

import msgspec

from collectors.clock import rfc3339
from monitor.core.questions import Principal, WindowsQuery
from monitor.query import Query
from monitor.web.answers import Window, WindowsAnswer
from monitor.web.parameters import Asked
from monitor.web.times import span


def answer(query: Query, principal: Principal, asked: Asked) -> WindowsAnswer:
    """The page. Raises what the gate raises."""
    question = msgspec.convert(asked.fields, WindowsQuery)
    page = query.windows(principal, question)
    records = [msgspec.structs.asdict(each) for each in page.windows]
    windows = tuple(Window(start=rfc3339(each.pop("time")), **each) for each in records)
    return WindowsAnswer(window=span(question.start, question.end), windows=windows, next=page.next)
