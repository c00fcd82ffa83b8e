"""What this process costs the host it meters, its children included. In: psutil. Out: AgentCost."""

import psutil

from monitor.selfmetrics import AgentCost


def agent_cost() -> AgentCost:
    """Since the process began; children that have ended are in their parent's time.

    Memory is the proportional set size, so that pages shared between processes count once; None where the kernel does
    not tell it.
    """
    own = psutil.Process()
    processes = [own, *own.children(recursive=True)]
    times = own.cpu_times()
    cpu_seconds = times.user + times.system + times.children_user + times.children_system
    memory: int | None = 0
    for process in processes:
        try:
            memory = None if memory is None else memory + process.memory_full_info().pss
            if process is not own:
                child = process.cpu_times()
                cpu_seconds += child.user + child.system
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            memory = None
    return AgentCost(cpu_seconds=cpu_seconds, memory_bytes=memory, processes=len(processes))
