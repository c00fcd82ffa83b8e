"""Role collect over recordings, in a fleet: the meters of recorded hosts, played into the host's log and shipped.

recordings --> ReplayRole (readings alone) --> host's log --> Shipper --> wattribute.readings
"""

from collections.abc import Callable, Sequence

import msgspec

from collectors.clock import Clock, sleep
from collectors.pace import Pace
from collectors.recording import Recording
from monitor.log.kafka_writer import KafkaWriter
from monitor.roles.control import accounting_of, state_intensities
from monitor.roles.fleet import FleetHouse
from monitor.roles.replay import ReplayRole, with_model_facts
from monitor.roles.shipper import Shipper


class Shipped(msgspec.Struct, frozen=True):
    """How a replay went. `finished` is False where it was told to stop before its end."""

    finished: bool
    records: int


def replay_readings(
    house: FleetHouse,
    recordings: Sequence[Recording],
    *,
    speed: float,
    clock: Clock,
    should_stop: Callable[[], bool] = lambda: False,
) -> Shipped:
    """Plays them, `speed` times as fast as they were made, and returns when the brokers have everything.

    One that stopped before, or was killed, goes on at the reading after the last in its log.
    """
    log, config = house.host_log, house.config
    assert log is not None, "role collect opens it"
    told = [with_model_facts(recording, config) for recording in recordings]
    role = ReplayRole(log, told, accounting_of(config), with_requests=False)
    state_intensities(log, [recording.profile.zone for recording in recordings], role.before_start)
    writer = KafkaWriter(config.kafka)
    shipper = Shipper(log, writer, most_bytes=config.log.max_size_bytes, clock=clock)
    shipper.start()
    pace, finished = Pace(speed), True
    try:
        for step in role.steps():
            if should_stop():
                finished = False
                break
            pace.wait_for(step.now)
            role.append([step])
        while finished and not should_stop() and not _everything_is_shipped(shipper, log.log_time()):
            sleep(0.1)
    finally:
        shipper.stop()
        writer.close()
    return Shipped(finished=finished, records=shipper.shipped_records)


def _everything_is_shipped(shipper: Shipper, log_time: float | None) -> bool:
    return log_time is None or (shipper.shipped_until is not None and shipper.shipped_until >= log_time)
