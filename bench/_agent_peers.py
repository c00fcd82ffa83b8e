"""The peers of the agent, in a virtual environment of their own outside this tree: made once, then kept."""

import os
import subprocess
import sys
from pathlib import Path

PEERS = {"codecarbon": "3.3.2", "zeus": "0.16.0"}
_INSTALL_SECONDS = 240.0


class CannotInstall(Exception):
    """No peers on this machine, and why."""


def python() -> Path:
    """The interpreter that has them. Raises CannotInstall."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    names = [f"{name}=={version}" for name, version in PEERS.items()]
    folder = cache / "wattribute-bench" / "-".join(f"{name}-{version}" for name, version in PEERS.items())
    interpreter, whole = folder / "bin" / "python", folder / "installed"
    if whole.exists():
        return interpreter
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *names)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        raise CannotInstall(f"{' '.join(names)} cannot be installed: {said.strip().splitlines()[-1]}") from error
    whole.touch()
    return interpreter


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=_INSTALL_SECONDS)
