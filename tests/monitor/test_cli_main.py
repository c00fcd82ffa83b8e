"""`wattribute`, the command itself."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from collectors.recording_error import RecordingError
from monitor.cli.main import COMMANDS, Entry, LazyGroup, cli
from monitor.config.problems import ConfigError, Problem
from monitor.core.questions import BadQuery, Denied
from monitor.log.protocol import LogUnavailable
from monitor.store.protocol import StoreUnavailable


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


PROBLEMS = [
    Problem(file="c.toml", line=3, key="a.b", message="is wrong"),
    Problem(file="c.toml", line=None, key="", message="no"),
]
ERRORS: dict[str, BaseException] = {
    "config": ConfigError(PROBLEMS),
    "query": BadQuery("end", "must lie behind the start"),
    "denied": Denied("ann may not see team b"),
    "store": StoreUnavailable("store.db: is no database"),
    "log": LogUnavailable("log.db: is locked"),
    "recording": RecordingError(Path("host.toml"), "has no host", "name it", line=2),
    "ctrl-c": KeyboardInterrupt(),
    "usage": click.UsageError("no"),
    "mistake": ZeroDivisionError("division by zero"),
}


@click.command()
@click.argument("error")
def fail(error: str) -> None:
    """Stands for a command that fails."""
    raise ERRORS[error]


def _fail(error: str) -> Result:
    group = LazyGroup(name="wattribute", entries={"fail": Entry(f"{__name__}:fail", "Fail.")})
    return CliRunner().invoke(group, ["fail", error])


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        ("config", 2, "c.toml:3: a.b: is wrong\nc.toml: no\n"),
        ("query", 2, "fail: end: must lie behind the start\n"),
        ("denied", 2, "fail: ann may not see team b\n"),
        ("store", 3, "fail: store.db: is no database\n"),
        ("log", 3, "fail: log.db: is locked\n"),
        ("recording", 3, "fail: host.toml:2: has no host; name it\n"),
        ("ctrl-c", 130, ""),
    ],
)
def test_an_expected_error_is_a_message_and_a_code(error: str, code: int, message: str) -> None:
    """Wrong use is 2, unavailable data 3, an interruption 130; the message goes to standard error, without a trace."""
    done = _fail(error)
    assert (done.exit_code, done.stderr, done.stdout) == (code, message, "")


def test_other_errors_stay_what_they_are() -> None:
    """A usage error is click's, code 2; a mistake of ours keeps its traceback."""
    assert _fail("usage").exit_code == 2
    assert isinstance(_fail("mistake").exception, ZeroDivisionError)


def test_a_reader_that_goes_away_is_no_error_to_tell(tmp_path: Path) -> None:
    """`wattribute check | head -0`: nothing on standard error, the code of a broken pipe."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    config = tmp_path / "config.toml"
    config.touch()
    command = [sys.executable, "-c", "from monitor.cli.main import main; main()", "check", "--config", str(config)]
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write_end)
    assert done.returncode == 141
    assert "rror" not in done.stderr


def test_help_lists_every_command_and_imports_none() -> None:
    """Nor what a command is made of: numpy, rich, msgspec."""
    done = _python(
        "import sys\n"
        "from monitor.cli.main import cli\n"
        "try: cli(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "unwanted = [name for name in sys.modules if name.startswith('monitor.cli.') and name != 'monitor.cli.main']\n"
        "print(unwanted + [name for name in ('numpy', 'rich', 'msgspec', 'ecologits') if name in sys.modules])\n"
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    for name, entry in COMMANDS.items():
        assert f"  {name} " in done.stdout
        assert entry.summary[:40] in done.stdout
    assert "3  data unavailable" in done.stdout


@pytest.mark.parametrize("name", ["check", "report", "simulate", "top"])
def test_a_command_is_loaded_when_it_is_called(name: str) -> None:
    """Its help is its own; numpy is loaded for nobody's help."""
    done = _python(
        "import sys\n"
        "from monitor.cli.main import cli\n"
        f"try: cli([{name!r}, '--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "print([each for each in ('numpy', 'ecologits') if each in sys.modules])\n"
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    assert f"{name} [OPTIONS]" in done.stdout


def test_the_version_is_the_package_s() -> None:
    """One line, for scripts and for bug reports."""
    assert CliRunner().invoke(cli, ["--version"]).stdout == f"wattribute {version('wattribute')}\n"


def test_an_unknown_command_is_wrong_use() -> None:
    """Exit code 2, on standard error."""
    done = CliRunner().invoke(cli, ["repot"])
    assert done.exit_code == 2
    assert "No such command 'repot'" in done.stderr
