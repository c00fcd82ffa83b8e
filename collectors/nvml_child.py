"""The child process of the NVML meter: reads when asked, says what it is about to do, and dies with its parent.

Run as `python -m collectors.nvml_child PARENT_PID`. It imports as little as it can: its memory counts as the agent's.
"""

import ctypes
import os
import signal
import sys
from typing import TypeVar

import msgspec

from collectors.nvml_samples import HEADER_BYTES, Ask, Done, Plan, Refused, framed

T = TypeVar("T", Plan, Ask)

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serves until the pipe is closed."""
    _die_with(int(sys.argv[1]))
    answers = os.dup(1)
    os.dup2(2, 1)  # what a driver library prints must not get between the frames
    plan = _received(Plan)
    if plan is not None:
        _serve(plan, answers)


def _serve(plan: Plan, answers: int) -> None:
    import pynvml

    from collectors.nvml import count_gpus, open_boards, read_board

    def tell(record: msgspec.Struct) -> None:
        os.write(answers, framed(record))

    try:
        opened, boards = open_boards(plan, tell)
    except pynvml.NVMLError as error:
        tell(Refused(code=error.value, text=str(error)))
        return
    tell(opened)
    while (ask := _received(Ask)) is not None:
        for board in boards:
            tell(read_board(board, slow=ask.slow))
        tell(Done(count=count_gpus() if ask.slow else None))


def _die_with(parent: int) -> None:
    """The kernel kills this process when the parent's thread that started it is gone, however it went."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the parent decides, not who signals the whole group
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it was gone before that
        sys.exit(0)


def _received(kind: type[T]) -> T | None:
    header = _exactly(HEADER_BYTES)
    return (
        None if header is None else msgspec.msgpack.decode(_exactly(int.from_bytes(header, "little")) or b"", type=kind)
    )


def _exactly(size: int) -> bytes | None:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            return None
        data += more
    return data


if __name__ == "__main__":
    main()
