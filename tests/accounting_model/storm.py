"""Members that keep the books of one partition, and all that may befall them: a schedule played from a seed.

At any call of a member on the log or the store it may be killed, or stand still while another member takes the
partition over and works on (it then wakes up and does not know); a write may fail, or land though it is said to have
failed, at once or long after newer ones; the commit of a pair of streams may be lost, or torn into halves.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from accounting_model.content import FACTS, Content
from accounting_model.partition import PARTS, MemoryLog, Partition
from accounting_model.tables import MemoryStore, Tables
from monitor.core.request_energy import RequestEnergy
from monitor.ledger.ledger import Ledger
from monitor.log.protocol import Commit, LogUnavailable, PartitionLog
from monitor.store.protocol import StoreUnavailable

DEEPEST = 2
"""So many members may stand still at once."""


class Killed(Exception):
    """The process is gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    """How often what happens, as parts of one of a member's calls."""

    kill: float = 0.0
    freeze: float = 0.0
    refuse: float = 0.0
    late_refusal: float = 0.0
    delay: float = 0.0
    lose_commit: float = 0.0
    tear_commit: float = 0.0


CALM = Weather()


def weather_of(random: Random) -> Weather:
    """A little of everything, much of some."""
    rates = {name: random.choice([0.0, 0.01, 0.05]) for name in Weather.__dataclass_fields__}
    return Weather(**rates)


@dataclass(slots=True)
class Member:
    """An aggregator's life: it begins with what is committed. `left` is what it may still do once it is a zombie."""

    name: str
    ledger: Any = None
    left: int = 0


@dataclass(slots=True)
class Storm:
    """One schedule in play. `ledger_of` makes a member's Ledger: another class is another set of rules."""

    content: Content
    random: Random
    weather: Weather
    ledger_of: Callable[..., Ledger] = Ledger
    log_of: Callable[[Partition], PartitionLog] = MemoryLog
    partition: Partition = field(default_factory=Partition)
    tables: Tables = field(default_factory=Tables)
    trace: list[str] = field(default_factory=list)
    show_provisional: bool = False
    whole_requests: bool = False
    entries: set[bytes] = field(default_factory=set)
    _sent: int = 0
    _lives: int = 0
    _depth: int = 0
    _member: Member | None = None
    _zombies: list[Member] = field(default_factory=list)
    _adrift: list[Callable[[], None]] = field(default_factory=list)

    def play(self) -> None:
        """The whole content in bad weather, then the closing ticks in calm."""
        while self._sent < len(self.content.records):
            self._act()
        for _ in range(self.random.randrange(8)):
            self._act()
        self.weather = CALM
        for zombie in self._zombies:
            self._step(zombie)
        self._zombies = []
        for land in self._adrift:
            land()
        self._adrift = []
        self.settle()

    def settle(self) -> None:
        """What has not been sent yet and the closing ticks, by one member without misfortune."""
        self.weather = CALM
        self.partition.append(self.content.records[self._sent :], 0.0)
        self._sent = len(self.content.records)
        for record in self.content.closing:
            self.partition.append([record], 0.0)
        member = self._member = self._member or self._born()
        while not self._step(member, 2_000):
            pass

    def _act(self) -> None:
        """One thing happens."""
        chance = self.random.random()
        if chance < 0.4:
            self._send(self.random.choice([1, 3, 10, 30]))
        elif chance < 0.85 or self._depth >= DEEPEST:
            self._member = self._member or self._born()
            self._step(self._member, self.random.choice([1, 7, 40, 2_000]))
        elif chance < 0.90 and self._zombies:
            self._zombie(self.random.randrange(len(self._zombies)))
        elif chance < 0.95 and self._adrift:
            self._note("a write lands")
            self._adrift.pop(self.random.randrange(len(self._adrift)))()
        elif self._member is not None and self.weather.freeze:
            self._note(f"{self._member.name} is replaced")
            self._haunt(self._member)
            self._take_over()

    def _send(self, count: int) -> None:
        records = self.content.records[self._sent : self._sent + count]
        self.partition.append(records, 0.0)
        self._sent += len(records)
        self._note(f"{len(records)} records come")

    def _zombie(self, number: int) -> None:
        zombie = self._zombies[number]
        zombie.left -= 1
        if zombie.left <= 0:
            del self._zombies[number]
        self._step(zombie)

    def _take_over(self) -> None:
        """The group gives the partition to another member; the one before it does not know yet."""
        self.partition.generation += 1
        self._member = None

    def _haunt(self, member: Member) -> None:
        """A member that was replaced may work on a little before it notices."""
        member.left = self.random.choice([0, 1, 2])
        if member.left:
            self._zombies.append(member)

    def _born(self) -> Member:
        self._lives += 1
        return Member(f"m{self._lives}")

    def _step(self, member: Member, limit: int = 2_000) -> bool:
        """One step of a member, if it lives; True where it had read all there is."""
        try:
            if member.ledger is None:
                log = Hand(self, member, self.log_of(self.partition), LOG_CALLS)
                store = Hand(self, member, MemoryStore(self.tables), STORE_CALLS)
                hand = Hand(self, member, self, ("finished",))
                member.ledger = self.ledger_of(
                    log,
                    store,
                    self.content.terms,
                    lambda: FACTS,
                    show_provisional=self.show_provisional,
                    finished=hand.finished if self.whole_requests else None,
                )
            count: int = member.ledger.step(limit)
        except Killed:
            self._note(f"{member.name} is killed")
            self._bury(member)
        except (StoreUnavailable, LogUnavailable) as error:
            self._note(f"{member.name}: {error}")
            if str(error).startswith("the partition is"):  # that is how it learns of it
                self._bury(member)
        else:
            self._note(f"{member.name} reads {count}, watermark {member.ledger.watermark}")
            return count == 0
        return False

    def _bury(self, member: Member) -> None:
        member.ledger = None
        if member is self._member:
            self._member = None
        if member in self._zombies:
            self._zombies.remove(member)

    def finished(self, entries: Sequence[RequestEnergy]) -> None:
        """What was said of whole requests."""
        self.entries.update(map(msgspec.json.encode, entries))

    def call(self, member: Member, name: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """A member's call on its log or store, with what befalls it."""
        if self.weather is CALM:
            return function(*args, **named)
        self._befall(member, f"before {name}")
        answer = self._fate(member, name, function, *args, **named)
        self._befall(member, f"after {name}")
        return answer

    def _befall(self, member: Member, where: str) -> None:
        chance = self.random.random()
        if chance < self.weather.kill:
            self._note(f"{member.name} {where}:")
            raise Killed
        if chance < self.weather.kill + self.weather.freeze and self._depth < DEEPEST and member is self._member:
            self._note(f"{member.name} stands still {where}")
            self._depth += 1
            self._take_over()
            for _ in range(self.random.randrange(2, 12)):
                self._act()
            self._depth -= 1
            self._note(f"{member.name} wakes up")
            self._haunt(member)

    def _fate(self, member: Member, name: str, function: Callable[..., Any], *args: Any, **named: Any) -> Any:
        weather = self.weather
        if name == "commit":
            return self._fate_of_commit(member, function, *args)
        if name not in WRITES:
            return function(*args, **named)
        chance = self.random.random()
        if chance < weather.refuse:
            raise StoreUnavailable(f"{name} refused")
        chance -= weather.refuse
        if chance < weather.late_refusal:
            function(*args, **named)
            raise StoreUnavailable(f"{name} done, and said to have failed")
        chance -= weather.late_refusal
        if chance < weather.delay:
            self._adrift.append(lambda: function(*args, **named))
            raise StoreUnavailable(f"{name} timed out, and is under way")
        return function(*args, **named)

    def _fate_of_commit(self, member: Member, function: Callable[[Commit], None], commit: Commit) -> None:
        chance = self.random.random()
        if chance < self.weather.lose_commit:
            raise LogUnavailable("commit lost")
        if chance < self.weather.lose_commit + self.weather.tear_commit:
            self.partition.torn = self.random.choice(PARTS)
            self._note(f"{member.name} commits {self.partition.torn} alone")
            try:
                function(commit)
            finally:
                self.partition.torn = None
            raise LogUnavailable("commit torn")
        function(commit)

    def _note(self, what: str) -> None:
        self.trace.append("  " * self._depth + what)


class Hand:
    """A member's log or store, whose calls that reach out go through the storm."""

    def __init__(self, storm: Storm, member: Member, inner: Any, names: Sequence[str]) -> None:
        self._inner = inner
        for name in names:
            setattr(self, name, self._through(storm, member, name))
        self._storm, self._member, self._names = storm, member, names

    def _through(self, storm: Storm, member: Member, name: str) -> Callable[..., Any]:
        function = getattr(self._inner, name)
        return lambda *args, **named: storm.call(member, name, function, *args, **named)

    def again(self) -> "Hand":
        """A reader of its own, that may be killed as well."""
        return Hand(self._storm, self._member, self._inner.again(), self._names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


LOG_CALLS = ("read", "committed", "commit", "reject")
STORE_CALLS = ("read", "write", "mark_rolled_up", "replace_provisional_pages")
WRITES = ("write", "mark_rolled_up", "finished")
