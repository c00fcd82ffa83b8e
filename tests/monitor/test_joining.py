"""Halves of requests from gateway and engine: one request each, whenever and however often they come."""

import random

import pytest

from collectors.requests.event import EventPart, RequestEvent
from monitor.core.joining import Half, Joiner, Side

WAIT, MEMORY = 60.0, 600.0


def half(side: Side, number: int = 1, **fields: object) -> Half:
    said: dict[str, object] = {"request_id": f"r{number}", "model": "m", "start": 100.0, "end": 110.0} | fields
    return Half(side=side, event=RequestEvent(**said))  # type: ignore[arg-type]


GATEWAY = half("gateway", team="search", input_tokens=7, output_tokens=3)
ENGINE = half("engine", host="gpu-1", devices=("GPU-1",), start=101.0, first_token=103.0, end=109.0, output_tokens=4)


@pytest.mark.parametrize("halves", [(GATEWAY, ENGINE), (ENGINE, GATEWAY)], ids=["gateway first", "engine first"])
def test_each_side_gives_what_it_knows(halves: tuple[Half, Half]) -> None:
    """Team and tokens are the gateway's, host, devices and phases the engine's."""
    joiner = Joiner(WAIT, MEMORY)
    assert joiner.take(halves[0], 1_000.0) == []
    (event,) = joiner.take(halves[1], 1_001.0)
    assert event == RequestEvent(
        request_id="r1",
        model="m",
        start=100.0,
        end=110.0,
        team="search",
        host="gpu-1",
        devices=("GPU-1",),
        scheduled=101.0,
        first_token=103.0,
        input_tokens=7,
        output_tokens=3,
    )


def test_the_parts_of_either_side_say_where_it_ran() -> None:
    """They stand beside no host of the event's own, whichever side names one."""
    part = EventPart(phase="decode", host="gpu-2", start=103.0, end=109.0)
    engine, gateway = half("engine", parts=(part,), start=101.0, end=109.0), half("gateway", host="gpu-1")
    joiner = Joiner(WAIT, MEMORY)
    joiner.take(gateway, 1_000.0)
    (event,) = joiner.take(engine, 1_001.0)
    assert (event.host, event.parts, event.scheduled) == (None, (part,), 101.0)


def test_waits_and_goes_alone() -> None:
    """After a minute of log time a half is a request by itself; its other half is counted, and no second request."""
    joiner = Joiner(WAIT, MEMORY)
    assert joiner.take(GATEWAY, 1_000.0) == []
    assert joiner.advance(1_059.9) == []
    assert joiner.advance(1_060.0) == [GATEWAY.event]
    assert joiner.take(ENGINE, 1_061.0) == []
    assert joiner.take(ENGINE, 1_062.0) == []
    assert joiner.unjoined == 1


def test_halves_that_come_twice_count_once() -> None:
    """A repeated half changes nothing, before and after the join."""
    joiner = Joiner(WAIT, MEMORY)
    joiner.take(GATEWAY, 1_000.0)
    assert joiner.take(GATEWAY, 1_001.0) == []
    assert len(joiner.take(ENGINE, 1_002.0)) == 1
    assert joiner.take(GATEWAY, 1_003.0) == []
    assert joiner.take(ENGINE, 1_004.0) == []
    assert joiner.unjoined == 0


def test_clocks_that_contradict() -> None:
    """An engine that says it began before the request did tells no phases."""
    joiner = Joiner(WAIT, MEMORY)
    joiner.take(GATEWAY, 1_000.0)
    (event,) = joiner.take(half("engine", host="gpu-1", start=99.0, first_token=120.0), 1_001.0)
    assert (event.scheduled, event.first_token, event.host) == (None, None, "gpu-1")


@pytest.mark.parametrize("seed", range(20))
def test_killed_anywhere_it_decides_the_same(seed: int) -> None:
    """Readers that die and start again from what they had committed hand on the same requests, each once."""
    rng = random.Random(seed)
    log: list[tuple[float, Half]] = []
    at = 10_000.0
    for number in range(300):
        at += rng.expovariate(0.2)
        sides = rng.choice([("gateway", "engine"), ("engine", "gateway"), ("gateway",), ("engine",)])
        for side in sides:
            later = at + rng.choice([0.0, 1.0, 30.0, 59.0, 61.0, 500.0])
            log.append((later, half(side, number)))  # type: ignore[arg-type]
            if rng.random() < 0.1:
                log.append((later + rng.random() * 100, log[-1][1]))
    log.sort(key=lambda each: each[0])

    whole = Joiner(WAIT, MEMORY)
    expected = [event for moment, each in log for event in whole.take(each, moment)]

    handed: list[RequestEvent] = []
    unjoined, begin, done, moment = 0, 0, 0, float("-inf")
    while done < len(log):
        joiner = Joiner(WAIT, MEMORY, moment)
        stamps = []
        for at, each in log[begin:done]:  # what was handed on already
            joiner.take(each, at)
            stamps.append(joiner.log_time)
        joiner.unjoined = 0
        end = min(len(log), done + rng.randrange(1, 100))
        for at, each in log[done:end]:
            handed += joiner.take(each, at)
            stamps.append(joiner.log_time)
        unjoined += joiner.unjoined
        forgotten = sum(1 for stamp in stamps if stamp <= joiner.needed_from)
        moment = stamps[forgotten - 1] if forgotten else moment
        begin, done = begin + forgotten, end
    assert handed == expected
    assert unjoined == whole.unjoined
    assert unjoined > 0
