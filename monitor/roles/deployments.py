"""Role control: states [[deployments]] as facts, so that every ingest places requests alike, now and when restated.

config --> facts stream of the log
"""

from collections.abc import Sequence

import msgspec

from collectors.units import UnixSeconds
from monitor.config.input_sections import Deployment as Configured
from monitor.core.facts import Facts
from monitor.log.codec import deployment_record
from monitor.log.protocol import LogWriter
from monitor.roles.placement import deployment_of


def state_deployments(facts: Facts, log: LogWriter, deployments: Sequence[Configured], now: UnixSeconds) -> list[str]:
    """States each deployment that is new or changed, and withdraws those no longer configured; returns their names.

    `facts` are all that stand in the log. Raises LogUnavailable.
    """
    known = {deployment.name: deployment for deployment in facts.serving.deployments(float("inf"))}
    wanted = {configured.name: deployment_of(configured) for configured in deployments}
    changed = [each for name, each in wanted.items() if known.get(name) != each]
    changed += [msgspec.structs.replace(each, hosts=()) for name, each in known.items() if name not in wanted]
    if changed:
        log.append([deployment_record(each) for each in changed], now)
    return [each.name for each in changed]
