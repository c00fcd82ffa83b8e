"""GET /v1/requests: what each request used."""

import json

import msgspec

from monitor.core.questions import Principal, RequestsQuery
from monitor.core.request_sums import RequestLine
from monitor.query import Query
from monitor.web.answers import Request, RequestsAnswer
from monitor.web.parameters import Asked
from monitor.web.times import span, with_told


def answer(query: Query, principal: Principal, asked: Asked) -> RequestsAnswer:
    """The page. Raises what the gate raises."""
    question = msgspec.convert(asked.fields, RequestsQuery)
    page = query.requests(principal, question)
    requests = tuple(_request(each) for each in page.requests)
    return RequestsAnswer(window=span(question.start, question.end), requests=requests, next=page.next)


def _request(line: RequestLine) -> Request:
    record = with_told(msgspec.structs.asdict(line), "start", "first_token", "end")
    labels = {key: str(value) for key, value in json.loads(line.labels or "{}").items()}
    factor = line.factor or None  # "" where the zone has none
    return Request(**record | {"labels": labels, "attempt": int(line.attempt), "factor": factor})
