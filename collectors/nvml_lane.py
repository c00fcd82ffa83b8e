"""One child process that makes driver calls, seen from outside: asked, listened to, and killed without waiting.

opening -> idle <-> asked      and from each of them -> ended (the pipe is closed: it refused, died or was killed)
"""

import contextlib
import os
import select
import subprocess
import sys
from typing import Literal

import msgspec

from collectors.clock import monotonic
from collectors.errors import Broken
from collectors.nvml_samples import HEADER_BYTES, Ask, Done, Frame, GpuRead, Opened, Plan, Refused, Step, framed

LaneState = Literal["opening", "idle", "asked", "ended"]

_CHUNK_BYTES = 65536


class Lane:
    """A child with its own set of GPUs. Starting it never waits; not thread-safe."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.state: LaneState = "opening"
        self.progress_at = monotonic()
        self._opening = ""
        self._order: tuple[str, ...] | None = None
        self._answered = 0
        self._asked = False
        self._buffer = bytearray()
        self._decoder = msgspec.msgpack.Decoder(Frame)
        command = [sys.executable, "-P", "-m", "collectors.nvml_child", str(os.getpid())]
        try:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise Broken(
                f"the NVML reader cannot be started, {sys.executable}: {error.strerror}; let this user run that program"
            ) from error
        self._in, self._out = self._pipe(self._process.stdin), self._pipe(self._process.stdout)
        os.set_blocking(self._out, False)
        self._send(plan)

    @staticmethod
    def _pipe(stream: object) -> int:
        return stream.fileno()  # type: ignore[attr-defined,no-any-return]

    @property
    def pid(self) -> int:
        """The child's."""
        return self._process.pid

    @property
    def standing_at(self) -> str:
        """The token of the GPU that it is occupied with; "" is the driver itself, or none."""
        if self._order is None:
            return self._opening
        return self._order[self._answered] if self._asked and self._answered < len(self._order) else ""

    @property
    def is_asked(self) -> bool:
        """Whether an answer is still to come."""
        return self._asked

    def stands_since(self) -> float:
        """Seconds since it last said anything, or was asked."""
        return monotonic() - self.progress_at

    def ask(self, *, slow: bool) -> bool:
        """Asks for one read of every GPU, not while it is still about one; a child that is opening answers later."""
        if self._asked or self.state == "ended":
            return False
        self._asked = True
        self._answered = 0
        if self.state == "idle":
            self.state = "asked"
            self.progress_at = monotonic()
        self._send(Ask(slow=slow))
        return True

    def collect(self, until: float) -> list[Frame]:
        """What it says until everything asked is answered, it ends, or the clock.monotonic() moment has come."""
        frames: list[Frame] = []
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while self._asked and self.state != "ended":
            left = until - monotonic()
            if not poll.poll(max(0.0, left) * 1000.0):
                break
            frames += self._received()
        return frames

    def wait_opened(self, until: float) -> Opened | Refused | None:
        """What came of opening; None where it did not come in time or the child died."""
        poll = select.poll()
        poll.register(self._out, select.POLLIN)
        while self.state == "opening" and poll.poll(max(0.0, until - monotonic()) * 1000.0):
            for frame in self._received():
                if isinstance(frame, Opened | Refused):
                    return frame
        return None

    def kill(self) -> None:
        """SIGKILL, and no waiting: a process inside a hung driver call dies when that call ends."""
        self.state = "ended"
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def is_reaped(self) -> bool:
        """Whether the process is no more."""
        return self._process.poll() is not None

    def wait_reaped(self, until: float) -> bool:
        """The same, by the clock.monotonic() moment."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until - monotonic()))
        return self.is_reaped()

    def how_it_ended(self) -> str:
        """ "killed by signal 11", for health."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.05)  # the pipe closes a moment before the process is gone
        code = self._process.returncode
        return "not ended" if code is None else f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def _send(self, record: msgspec.Struct) -> None:
        try:
            os.write(self._in, framed(record))
        except BrokenPipeError:
            self.state = "ended"

    def _received(self) -> list[Frame]:
        try:
            chunk = os.read(self._out, _CHUNK_BYTES)
        except BlockingIOError:
            return []
        if not chunk:
            self.state = "ended"
            return []
        self.progress_at = monotonic()
        self._buffer += chunk
        frames: list[Frame] = []
        while len(self._buffer) >= HEADER_BYTES:
            end = HEADER_BYTES + int.from_bytes(self._buffer[:HEADER_BYTES], "little")
            if len(self._buffer) < end:
                break
            frames.append(self._decoder.decode(self._buffer[HEADER_BYTES:end]))
            del self._buffer[:end]
            self._follow(frames[-1])
        return frames

    def _follow(self, frame: Frame) -> None:
        match frame:
            case Step(token=token):
                self._opening = token
            case Opened(gpus=gpus):
                self._order = tuple(gpu.token for gpu in gpus)
                self.state = "asked" if self._asked else "idle"
            case Refused():
                self.state = "ended"
            case GpuRead():
                self._answered += 1
            case Done():
                self._asked = False
                self.state = "idle"
