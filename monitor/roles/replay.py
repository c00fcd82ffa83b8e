"""Roles collect and ingest over recordings: what a replay hands on goes into the log, stamped by the replay's clock.

recording --> Replay --> steps --> readings, usage --> log
                              \\--> rejected ---------> dead letters
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

import msgspec

from collectors.errors import Rejected
from collectors.readings import ModelFacts
from collectors.recording import Recording
from collectors.replay import HostStep, Replay, Step
from collectors.requests.decoders.native import check_not_future
from collectors.requests.event import RequestEvent
from collectors.units import UnixSeconds
from monitor.config.sections import Config
from monitor.core.membership import Accounting
from monitor.core.serving import Place
from monitor.core.usage import Usage, usage_of, usages_of_parts
from monitor.log.codec import ReadingBatch, readings_record, tick_record, usage_record
from monitor.log.protocol import Append, DeadLetter, Log
from monitor.roles.placement import with_unknown_team

FACTS_LEAD_SECONDS = 120.0


class ReplayRole:
    """Writes a replay into a log, going on behind what is there already."""

    def __init__(
        self,
        log: Log,
        recordings: Sequence[Recording],
        terms: Accounting,
        *,
        trust_team: bool = True,
        with_requests: bool = True,
    ) -> None:
        """Without its requests a recording plays the meters of its host alone: they come from elsewhere."""
        self._log, self._with_requests = log, with_requests
        self._trust_team = trust_team
        self._recordings = recordings
        self.replay = Replay(recordings)
        self._settled_at = terms.mark_after(self.replay.end + terms.horizon_seconds + terms.window_seconds)

    @property
    def before_start(self) -> UnixSeconds:
        """When the facts are stated: ahead of everything recorded."""
        return self.replay.start - FACTS_LEAD_SECONDS

    def steps(self) -> Iterator[Step]:
        """The steps that are not in the log yet. The last one lets the clock run on until everything is final."""
        written = self._log.log_time()
        after = float("-inf") if written is None else written
        yield from self.replay.steps(after)
        if after < self._settled_at:
            yield Step(self._settled_at, ())

    def refuse_bad_input(self) -> None:
        """Keeps what the recordings hold and nobody can use, with its reason."""
        self._log.reject(
            [
                DeadLetter(
                    source=bad.source,
                    position=bad.position,
                    reason=bad.reason,
                    detail=bad.detail,
                    sha256=bad.sha256,
                    at=self.replay.start if bad.at is None else bad.at,
                )
                for recording in self._recordings
                for bad in recording.rejected
            ]
        )

    def append(self, steps: Sequence[Step]) -> None:
        """Stores these steps in the log, all or none."""
        records: list[Append] = []
        for step in steps:
            if not step.hosts:
                records += self._ticks(step.now)
            for host in step.hosts:
                records += self._records(host, step.now)
        if records:
            self._log.append(records, steps[-1].now)

    def _ticks(self, now: UnixSeconds) -> list[Append]:
        if self._with_requests:
            return [tick_record("", stamp=now)]
        return [tick_record(each.profile.host, stamp=now, stream="readings") for each in self._recordings]

    def _records(self, host: HostStep, now: UnixSeconds) -> list[Append]:
        events = host.events if self._with_requests else ()
        usages: dict[str, list[Usage]] = {}
        for event in events:
            for usage in self._usages(host, event) if self._accepts(host, event, now) else ():
                usages.setdefault(usage.host, []).append(usage)
        records = []
        if host.readings or host.engines:
            batch = ReadingBatch(profile=host.profile, readings=host.readings, engines=host.engines)
            records.append(readings_record(batch, stamp=now))
        records += [usage_record(of_host, theirs, stamp=now) for of_host, theirs in usages.items()]
        return records

    def _usages(self, host: HostStep, event: RequestEvent) -> Sequence[Usage]:
        """The event's part on this host, and on others that its parts name."""
        event, here = event if self._trust_team else with_unknown_team(event), host.profile.host
        if not event.parts:
            return (usage_of(event, here),)
        return usages_of_parts(event, lambda part: (Place(host=part.host or here, devices=part.devices),))

    def _accepts(self, host: HostStep, event: RequestEvent, now: UnixSeconds) -> bool:
        try:
            check_not_future(event, now)
        except Rejected as rejected:
            letter = DeadLetter(
                source=f"{host.profile.host}/requests",
                position=f"{event.namespace}/{event.request_id}/{event.attempt}",
                reason=rejected.reason,
                detail=rejected.detail,
                sha256=sha256(msgspec.msgpack.encode(event)).hexdigest(),
                at=now,
            )
            self._log.reject([letter])
            return False
        return True


def with_model_facts(recording: Recording, config: Config) -> Recording:
    """The recording with [[models]] of the configuration for models of which it tells nothing itself."""
    told = {model.name for model in recording.profile.models}
    more = tuple(
        ModelFacts(
            name=model.name,
            parameters=model.parameters,
            active_parameters=model.active_parameters,
            bytes_per_parameter=model.bytes_per_parameter,
            kv_bytes_per_token=model.kv_bytes_per_token,
        )
        for model in config.models
        if model.name not in told
    )
    if not more:
        return recording
    profile = msgspec.structs.replace(recording.profile, models=recording.profile.models + more)
    return replace(recording, profile=profile)
