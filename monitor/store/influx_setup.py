"""Makes the buckets of the books, and compares them with the configuration. In: settings, retention. Out: differences.

On 2.x buckets by /api/v2/buckets, and a mapping for InfluxQL only where the server does not make one by itself; on 1.x
databases, whose default retention policy holds the retention.
"""

import math
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import msgspec

from monitor.config.output_sections import InfluxDb
from monitor.store.influx_http import NOT_FOUND, Refused, Server
from monitor.store.influx_layout import PARTS, Part
from monitor.store.influx_query import QUERY_SECONDS
from monitor.store.protocol import StoreUnavailable
from monitor.store.retention import Retention

_GO_DURATION: Final = re.compile(r"(\d+)(h|ms|m|s)")
_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Wanted(msgspec.Struct, frozen=True):
    """A bucket and for how many whole seconds it keeps its points; 0 is for ever."""

    name: str
    keep_seconds: int


class Difference(msgspec.Struct, frozen=True):
    """What is not as configured: `found` is None where the bucket is missing."""

    wanted: Wanted
    found_seconds: int | None = None
    readable: bool = True

    def __str__(self) -> str:
        if self.found_seconds is None:
            return f"bucket {self.wanted.name!r} is missing"
        if not self.readable:
            return f"bucket {self.wanted.name!r} cannot be read by InfluxQL: it has no DBRP mapping"
        told = f"keeps points {_span(self.found_seconds)}, configured is {_span(self.wanted.keep_seconds)}"
        return f"bucket {self.wanted.name!r} {told}"


def buckets(settings: InfluxDb, retention: Retention) -> list[Wanted]:
    """The buckets of the books, each with its retention. Without `requests` there is none for them."""
    kept: Mapping[Part, float] = {
        "": retention.windows_seconds,
        "_hours": retention.hours_seconds,
        "_days": retention.days_seconds,
        "_provisional": retention.provisional_seconds,
        "_requests": retention.requests_seconds,
    }
    parts = [part for part in PARTS if part != "_requests" or settings.requests]
    return [Wanted(settings.bucket + part, _whole(kept[part])) for part in parts]


class Setup:
    """Raises StoreUnavailable where the server does not answer, or refuses."""

    def __init__(self, settings: InfluxDb) -> None:
        self._server = Server(settings)
        self._buckets: _Buckets = _Databases(self._server) if settings.api == "v1" else _Buckets(self._server)

    def differences(self, retention: Retention) -> list[Difference]:
        """What is not as configured."""
        found = []
        for wanted in buckets(self._server.settings, retention):
            keep_seconds = self._buckets.keep_seconds(wanted.name)
            if keep_seconds != wanted.keep_seconds:
                found.append(Difference(wanted, keep_seconds))
            if keep_seconds is not None and not self._buckets.is_readable(wanted.name):
                found.append(Difference(wanted, keep_seconds, readable=False))
        return found

    def mend(self, retention: Retention) -> Iterator[str]:
        """Makes it so, and tells each thing done; nothing where all is as configured."""
        for wanted in buckets(self._server.settings, retention):
            keep_seconds = self._buckets.keep_seconds(wanted.name)
            if keep_seconds is None:
                self._buckets.make(wanted)
                yield f"bucket {wanted.name!r} made, keeps points {_span(wanted.keep_seconds)}"
            elif keep_seconds != wanted.keep_seconds:
                self._buckets.change(wanted)
                yield f"bucket {wanted.name!r} keeps points {_span(wanted.keep_seconds)}, before {_span(keep_seconds)}"
            if not self._buckets.is_readable(wanted.name):
                self._buckets.map(wanted.name)
                yield f"bucket {wanted.name!r} mapped for InfluxQL"

    def close(self) -> None:
        """Lets go of the connections."""
        self._server.close()


class _Buckets:
    """Those of 2.x."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def keep_seconds(self, name: str) -> int | None:
        """For how long a bucket keeps its points, 0 for ever; None where there is none."""
        bucket = self._bucket(name)
        return None if bucket is None else sum(rule["everySeconds"] for rule in bucket["retentionRules"])

    def make(self, wanted: Wanted) -> None:
        """Makes a bucket that is not there."""
        body = {"orgID": self._org_id(), "name": wanted.name, "retentionRules": _rules(wanted)}
        self._answer("make", wanted.name, "POST", "/api/v2/buckets", body=body)

    def change(self, wanted: Wanted) -> None:
        """Gives a bucket another retention."""
        body = {"retentionRules": _rules(wanted)}
        self._answer("change", wanted.name, "PATCH", f"/api/v2/buckets/{self._id(wanted.name)}", body=body)

    def is_readable(self, name: str) -> bool:
        """Whether InfluxQL sees the bucket."""
        answer = self._answer("read", name, "GET", "/query", {"db": name, "q": "SHOW MEASUREMENTS LIMIT 1"})
        return "error" not in answer["results"][0]

    def map(self, name: str) -> None:
        """Lets InfluxQL see the bucket as a database of its name."""
        body = {
            "bucketID": self._id(name),
            "database": name,
            "retention_policy": "autogen",
            "default": True,
            "orgID": self._org_id(),
        }
        self._answer("map", name, "POST", "/api/v2/dbrps", body=body)

    def _bucket(self, name: str) -> Any:
        query = {"org": self._server.settings.org, "name": name}
        try:
            found = self._answer("find", name, "GET", "/api/v2/buckets", query, passed_on=(NOT_FOUND,))
        except Refused as refused:
            if refused.reason.startswith("bucket"):
                return None
            if "organization" in refused.reason:
                raise self._server.unavailable("find", f"bucket {name!r}", refused) from refused
            raise StoreUnavailable(
                f'{self._server.url}: this server has no /api/v2/buckets. InfluxDB 1.x: set [influxdb] api = "v1".'
                f" InfluxDB 3: make {name!r} and its siblings as databases with its own tools, retentions as in [store]"
            ) from refused
        return found["buckets"][0] if found["buckets"] else None

    def _id(self, name: str) -> str:
        return str(self._bucket(name)["id"])

    def _org_id(self) -> str:
        org = self._server.settings.org
        found = self._answer("find", org, "GET", "/api/v2/orgs", {"org": org})["orgs"]
        if not found:
            raise StoreUnavailable(
                f"{self._server.url}: cannot find org {org!r}: correct [influxdb] org,"
                " or give the token the right to read it"
            )
        return str(found[0]["id"])

    def _answer(
        self,
        doing: str,
        name: str,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: Any = None,
        passed_on: Collection[int] = (),
    ) -> Any:
        encoded = None if body is None else msgspec.json.encode(body)

        def ask() -> bytes:
            answer = self._server.request(method, path, query=query, body=encoded, timeout_seconds=QUERY_SECONDS)
            return answer.data

        return msgspec.json.decode(self._server.attempt(doing, repr(name), ask, passed_on=passed_on))


class _Databases(_Buckets):
    """Those of 1.x."""

    def keep_seconds(self, name: str) -> int | None:
        """The duration of its default retention policy."""
        policy = self._policy(name)
        return None if policy is None else _seconds(policy["duration"])

    def make(self, wanted: Wanted) -> None:
        """CREATE DATABASE, with the retention in its default policy."""
        self._run("make", wanted.name, f"CREATE DATABASE {_identifier(wanted.name)} WITH DURATION {_duration(wanted)}")

    def change(self, wanted: Wanted) -> None:
        """ALTER RETENTION POLICY."""
        policy = self._policy(wanted.name) or {}
        on = f"{_identifier(policy['name'])} ON {_identifier(wanted.name)}"
        self._run("change", wanted.name, f"ALTER RETENTION POLICY {on} DURATION {_duration(wanted)} SHARD DURATION 0s")

    def is_readable(self, name: str) -> bool:
        """A database always is."""
        return True

    def _policy(self, name: str) -> dict[str, Any] | None:
        answer = self._query("find", name, f"SHOW RETENTION POLICIES ON {_identifier(name)}")
        [result] = answer["results"]
        if "database not found" in result.get("error", ""):
            return None
        if "error" in result:
            raise StoreUnavailable(f"{self._server.url}: cannot find {name!r}: {result['error']}")
        [series] = result["series"]
        policies = [dict(zip(series["columns"], values, strict=True)) for values in series["values"]]
        return next((policy for policy in policies if policy["default"]), None)

    def _run(self, doing: str, name: str, text: str) -> None:
        for result in self._query(doing, name, text)["results"]:
            if "error" in result:
                raise StoreUnavailable(f"{self._server.url}: cannot {doing} {name!r}: {result['error']}")

    def _query(self, doing: str, name: str, text: str) -> Any:
        return self._answer(doing, name, "POST", "/query", {"q": text})


def _rules(wanted: Wanted) -> list[dict[str, Any]]:
    return [{"type": "expire", "everySeconds": wanted.keep_seconds}]


def _duration(wanted: Wanted) -> str:
    return f"{wanted.keep_seconds}s" if wanted.keep_seconds else "INF"


def _identifier(name: str) -> str:
    """A name in the text of a statement, which takes no parameters there."""
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _seconds(text: str) -> int:
    """840h0m0s is 3 024 000."""
    return round(sum(float(number) * _UNIT_SECONDS[unit] for number, unit in _GO_DURATION.findall(text)))


def _whole(seconds: float) -> int:
    return 0 if math.isinf(seconds) else math.ceil(seconds)


def _span(seconds: int) -> str:
    if not seconds:
        return "for ever"
    days, rest = divmod(seconds, 86_400)
    return f"{days} days" if not rest else f"{seconds} s"
