"""A recording of an image server in which every joule is known: all images that are active take each step together.

A step of images of s1, s2, .. megapixels lasts 10 ms + 40 ms a megapixel and takes idle power for that time, 1 J, and
12 J a megapixel. So the cost of a step is affine in the megapixels, and the Shapley value of an image is its equal part
of what a step costs without any (10 ms of idle power and 1 J) and its own megapixels: 12 J + 40 ms of idle power each.
"""

import json
import random
from pathlib import Path
from typing import Final, NamedTuple

IDLE_WATTS: Final = 70.0
STEPS: Final = 20
BEGIN: Final = 1_728_000_000.0
STEP_SECONDS, STEP_JOULES = 0.010, 1.0
SIZE_SECONDS, SIZE_JOULES = 0.040, 12.0
SIZES: Final = {"thumbnails": (0.25, 0.5), "posters": (2.0, 4.0)}
EACH_SECONDS: Final = {"thumbnails": 4.0, "posters": 16.0}
_HOST: Final = f"""\
host = "images-1"
zone = "FR"

[[devices]]
id = "gpu0"
kind = "gpu"
hardware = "NVIDIA H100 80GB HBM3"
idle_watts = {IDLE_WATTS}
"""


class Image(NamedTuple):
    """One request: `joules` is what is truly its own."""

    request_id: str
    team: str
    megapixels: float
    start: float
    end: float
    joules: float


class _Active:
    def __init__(self, number: int, team: str, megapixels: float, start: float) -> None:
        self.number, self.team, self.megapixels, self.start = number, team, megapixels, start
        self.left, self.joules = STEPS, 0.0


def made_images(seconds: float, seed: int) -> tuple[list[Image], list[tuple[float, float]]]:
    """The images, and (time, joules since the start) at the end of each step; both in seconds from the start."""
    chance = random.Random(seed)
    coming = [
        _Active(0, team, chance.uniform(*SIZES[team]), at)
        for team, each in EACH_SECONDS.items()
        for at in _arrivals(chance, seconds, each)
    ]
    coming.sort(key=lambda image: image.start)
    done: list[Image] = []
    meter = [(0.0, 0.0)]
    active: list[_Active] = []
    now = joules = 0.0
    while coming or active:
        if not active:
            joules += IDLE_WATTS * max(coming[0].start - now, 0.0)
            now = max(now, coming[0].start)
            meter.append((now, joules))
        while coming and coming[0].start <= now:
            active.append(coming.pop(0))
        size = sum(image.megapixels for image in active)
        lasts = STEP_SECONDS + SIZE_SECONDS * size
        for image in active:
            image.joules += (STEP_JOULES + IDLE_WATTS * STEP_SECONDS) / len(active)
            image.joules += image.megapixels * (SIZE_JOULES + IDLE_WATTS * SIZE_SECONDS)
            image.left -= 1
        now, joules = now + lasts, joules + IDLE_WATTS * lasts + STEP_JOULES + SIZE_JOULES * size
        meter.append((now, joules))
        for image in [each for each in active if not each.left]:
            active.remove(image)
            done.append(Image(f"i{len(done)}", image.team, image.megapixels, image.start, now, image.joules))
    return done, [*meter, (now + 60.0, joules + 60.0 * IDLE_WATTS)]


def _arrivals(chance: random.Random, seconds: float, each_seconds: float) -> list[float]:
    found, now = [], chance.expovariate(1.0 / each_seconds)
    while now < seconds:
        found.append(now)
        now += chance.expovariate(1.0 / each_seconds)
    return found


def write_images(folder: Path, seconds: float, seed: int, unit: str = "megapixel") -> list[Image]:
    """The recording, with a counter that is read each second; returns the images with their true joules.

    An image waits for the step that is under way: it is active from then on (`scheduled` is not told, as most image
    servers do not).
    """
    images, meter = made_images(seconds, seed)
    folder.mkdir(parents=True)
    (folder / "host.toml").write_text(_HOST)
    lines, place = ["time,device,energy_joules_total"], 0
    for second in range(int(meter[-1][0])):
        while meter[place + 1][0] < second:
            place += 1
        (begin, before), (end, after) = meter[place], meter[place + 1]
        part = (second - begin) / (end - begin) if end > begin else 1.0
        lines.append(f"{BEGIN + second},gpu0,{before + part * (after - before)!r}")
    (folder / "readings.csv").write_text("\n".join(lines) + "\n")
    events = [
        {
            "request_id": image.request_id,
            "model": "painter",
            "team": image.team,
            "start": BEGIN + image.start,
            "end": BEGIN + image.end,
            "work": {"unit": unit, "amount": image.megapixels},
        }
        for image in images
    ]
    (folder / "requests.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    return images
