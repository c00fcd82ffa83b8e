"""What the documents say is so: paths, commands, names of the books, and the example's figures."""

import json
import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from monitor.cli.main import COMMANDS, EXIT_FAILED, EXIT_INTERRUPTED, EXIT_UNAVAILABLE, EXIT_USAGE, cli
from monitor.core.points import MEASUREMENTS

ROOT = Path(__file__).parent.parent
ROOMS = ("bench/", "collectors/", "docs/", "monitor/", "systemd/", "tests/")
ROOT_FILES = (
    "CHANGELOG.md",
    "LICENSE",
    "Makefile",
    "SECURITY.md",
    "config.toml",
    "pyproject.toml",
    "requirements.lock",
)
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]
EXAMPLE = ROOT / "docs" / "examples" / "two-requests"

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def _quoted(text: str) -> list[str]:
    """What stands in single backticks, blocks aside."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def _blocks(text: str) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)


def _calls(text: str) -> list[list[str]]:
    """The words behind `wattribute`, wherever a call of it is shown."""
    shown = [*_quoted(text), *(line for block in _blocks(text) for line in block.splitlines())]
    calls = (line.removeprefix("$ ") for line in shown)
    return [shlex.split(call)[1:] for call in calls if re.match(r"wattribute [a-z-]", call)]


@pages
def test_every_path_named_in_the_documents_exists(page: Path) -> None:
    """A path in backticks that begins with a room of the house, or names a file at its root, is there."""
    names = [name for name in _quoted(page.read_text()) if re.fullmatch(r"[\w./-]+", name)]
    paths = [name for name in names if name.startswith(ROOMS) or name in ROOT_FILES or name.endswith((".py", ".md"))]
    beside = (ROOT, page.parent)
    assert [path for path in paths if not any((folder / path).exists() for folder in beside)] == []


@pages
def test_every_link_between_the_documents_leads_somewhere(page: Path) -> None:
    """A link that is no address of the web is a file."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    assert [link for link in links if "://" not in link and not (page.parent / link).exists()] == []


@pages
def test_every_command_in_the_documents_exists_with_its_options(page: Path) -> None:
    """What a reader would type is understood."""
    context = click.Context(cli)
    for words in _calls(page.read_text()):
        options = [word for word in words if word.startswith("--")]
        target: click.Command | None = cli
        if not words[0].startswith("-"):
            target = cli.get_command(context, words[0])
        if isinstance(target, click.Group) and len(words) > 1:
            target = target.get_command(context, words[1])
        assert target is not None, words
        known = {name for each in target.get_params(context) for name in (*each.opts, *each.secondary_opts)}
        assert set(options) <= known, words


def test_the_readme_lists_every_command_and_exit_code() -> None:
    """None is missing from its tables."""
    text = (ROOT / "README.md").read_text()
    assert {words[0] for words in _calls(text)} == set(COMMANDS)
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    assert codes == {0, EXIT_FAILED, EXIT_USAGE, EXIT_UNAVAILABLE, EXIT_INTERRUPTED}


def test_the_page_of_the_books_lists_what_is_in_the_list_of_names() -> None:
    """Each measurement, tag and field is told once, in its order, and nothing else is."""
    text = (ROOT / "docs" / "books.md").read_text()
    told: dict[str, dict[str, list[str]]] = {}
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        if heading := re.match(r"`(\w+)`", section):
            rows = re.findall(r"^\| `(\w+)` \| (tag|sum|fact) \|", section, flags=re.MULTILINE)
            told[heading[1]] = {role: [name for name, its in rows if its == role] for role in ("tag", "sum", "fact")}
    listed = {
        name: {"tag": list(each.tags), "sum": list(each.sums), "fact": list(each.facts)}
        for name, each in MEASUREMENTS.items()
        if not name.startswith("provisional_")
    }
    assert told == listed
    for name, each in MEASUREMENTS.items():
        if name.startswith("provisional_"):
            final = MEASUREMENTS[name.removeprefix("provisional_")]
            assert f"`{name}`" in text
            assert (each.tags, each.fields) == (final.tags, final.fields)


def test_the_architecture_fits_one_screen() -> None:
    """It is a page to walk, not a book."""
    assert len((ROOT / "docs" / "architecture.md").read_text().splitlines()) <= 80


def test_the_example_gives_the_figures_of_the_readme() -> None:
    """Each line that the README shows of the example's statement is in the statement."""
    block = next(each for each in _blocks((ROOT / "README.md").read_text()) if "replay docs/examples" in each)
    result = CliRunner().invoke(cli, ["replay", str(EXAMPLE)])
    assert result.exit_code == 0, result.output
    printed = result.stdout.splitlines()
    assert [line for line in block.splitlines()[1:] if line not in printed] == []


def test_the_example_gives_what_was_worked_by_hand() -> None:
    """600 J alone and 300 J shared for each request; of 4 quiet seconds 200 J are idle, 1 000 J nobody reported."""
    result = CliRunner().invoke(cli, ["replay", str(EXAMPLE), "--json"])
    told = json.loads(result.stdout)
    assert {line["team"]: line["energy_joules"] for line in told["by"]} == {
        "search": pytest.approx(900.0, rel=1e-12),
        "support": pytest.approx(900.0, rel=1e-12),
    }
    assert [line["exact_joules"] for line in told["by"]] == [pytest.approx(600.0, rel=1e-12)] * 2
    assert told["measured_joules"] == pytest.approx(3_000.0, rel=1e-12)
    assert told["idle_joules"] == pytest.approx(200.0, rel=1e-12)
    assert told["unattributed_reasons"]["unreported"] == pytest.approx(1_000.0, rel=1e-12)
    assert told["emissions_grams"] == pytest.approx(0.04144, rel=1e-12)
