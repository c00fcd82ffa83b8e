"""Node power by IPMI DCMI (DCMI 1.5, 6.6.1 Get Power Reading), through the host's own controller and `ipmitool`.

ipmitool is a program of its own, asked without a shell: it needs /dev/ipmi0, and no address, user or password. One that
hangs in the driver is killed and left behind; no other is started before it has ended.
"""

import re
import subprocess
from collections.abc import Sequence
from typing import Final

from collectors.bmc import NodeReading
from collectors.errors import Broken, RetryLater

COMMAND: Final = ("ipmitool", "dcmi", "power", "reading")
TIMEOUT_SECONDS: Final = 5.0
INSTALL: Final = "apt-get install ipmitool"
LOAD_DRIVER: Final = "modprobe ipmi_si && modprobe ipmi_devintf"
GIVE_ACCESS: Final = "chgrp wattribute /dev/ipmi0 && chmod 660 /dev/ipmi0; for good by a udev rule, see docs/install.md"
ACTIVATE: Final = 'ipmitool dcmi power activate, or use protocol = "redfish" under [collect.bmc]'
_READING: Final = re.compile(r"^\s*Instantaneous power reading\s*:\s*(\d+)\s*Watts\s*$", re.MULTILINE)
_STATE: Final = re.compile(r"^\s*Power reading state is\s*:\s*(\w+)\s*$", re.MULTILINE)


class IpmiPower:
    """A NodePower. `command` is what prints the reading."""

    described = "IPMI DCMI"
    hardware = ""

    def __init__(self, command: Sequence[str] = COMMAND, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._command, self._timeout = tuple(command), timeout_seconds
        self._child: subprocess.Popen[str] | None = None
        self.mend = INSTALL

    def open(self) -> None:
        """Asks once, so that what is missing is told at the start."""
        self.read()

    def read(self) -> NodeReading:
        """The power now. RetryLater when the controller does not answer in time; Broken when a person must act."""
        output, errors, status = self._run()
        if status != 0:
            raise self._refused(errors.strip() or output.strip() or f"exit status {status}")
        return self._reading(output)

    def close(self) -> None:
        """A child that hangs is left behind; it was told to end."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()

    def _run(self) -> tuple[str, str, int]:
        if self._child is not None and self._child.poll() is None:
            raise RetryLater("ipmitool still hangs in the driver since an earlier reading")
        try:
            child = self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"},
            )
        except OSError as error:
            self.mend = INSTALL
            raise Broken(f"{self._command[0]} cannot be run: {error.strerror}; {self.mend}") from error
        try:
            output, errors = child.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            child.kill()  # not waited for: in the driver it may not die
            _close_pipes(child)
            raise RetryLater(
                f"ipmitool did not answer within {self._timeout:g} s; the controller may be busy"
            ) from None
        return output, errors, child.returncode

    def _refused(self, said: str) -> Broken | RetryLater:
        said = said.splitlines()[0][:200]
        if "Permission denied" in said:
            self.mend = GIVE_ACCESS
        elif "Could not open device" in said:
            self.mend = LOAD_DRIVER
        elif "DCMI" in said:
            self.mend = ACTIVATE
        else:
            return RetryLater(f"ipmitool: {said}")
        return Broken(f"ipmitool: {said}; {self.mend}")

    def _reading(self, output: str) -> NodeReading:
        state, reading = _STATE.search(output), _READING.search(output)
        if state is not None and state[1] != "activated":
            self.mend = ACTIVATE
            raise Broken(f"the controller's power reading is {state[1]}; {self.mend}")
        if reading is None:
            self.mend = ACTIVATE
            raise Broken(f"ipmitool tells no instantaneous power; {self.mend}")
        return NodeReading(power_watts=float(reading[1]))


def _close_pipes(child: "subprocess.Popen[str]") -> None:
    for pipe in (child.stdout, child.stderr):
        if pipe is not None:
            pipe.close()
