"""Judges seeds by the thousand: `python -m accounting_model FIRST COUNT` in the folder `tests`; one alone is told."""

import argparse
import logging
import sys
import time

import structlog

from accounting_model.kafka import MemoryKafka
from accounting_model.partition import MemoryLog
from accounting_model.plain import plain_arithmetic
from accounting_model.storm import Weather
from accounting_model.verdict import judge


def main(arguments: list[str]) -> int:
    """Prints the failing seeds and the rate; exit code 1 where a seed fails."""
    parser = argparse.ArgumentParser(prog="accounting_model", description=__doc__)
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int, nargs="?", default=1)
    parser.add_argument("--kafka", action="store_true", help="over the real KafkaPartition")
    for name in Weather.__dataclass_fields__:
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, help="instead of the seed's own weather")
    options = parser.parse_args(arguments)
    rates = {name: rate for name in Weather.__dataclass_fields__ if (rate := getattr(options, name)) is not None}
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    log_of = MemoryKafka if options.kafka else MemoryLog
    begun, failed = time.process_time(), []
    with plain_arithmetic():
        for seed in range(options.first, options.first + options.count):
            verdict = judge(seed, weather=Weather(**rates) if rates else None, log_of=log_of)
            if verdict.differences:
                failed.append(seed)
                told = verdict.told() if options.count == 1 else f"seed {seed}: {verdict.differences[0]}"
                sys.stdout.write(f"{told}\n")
    seconds = time.process_time() - begun
    rate = 60.0 * options.count / seconds
    sys.stdout.write(f"{len(failed)} of {options.count} failed; {rate:,.0f} schedules a minute of CPU\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
