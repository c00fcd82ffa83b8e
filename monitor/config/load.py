"""Loads the configuration: files -> tree -> Config, or every problem at once."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, cast

from monitor.config.convert import Converter
from monitor.config.files import Tree
from monitor.config.problems import ConfigError, Problem
from monitor.config.sections import Config

DEFAULT_PATH: Final = Path("/etc/wattribute/config.toml")


def load_config(path: Path | None, *, environ: Mapping[str, str], default_path: Path = DEFAULT_PATH) -> Config:
    """The configuration in that file and the drop-ins beside it, checked; raises ConfigError with all it found.

    None means `default_path`, and the built-in defaults where that does not exist. `environ` is what
    `${VAR}` refers to.
    """
    files = config_files(path, default_path=default_path)
    tree = Tree()
    for file in files:
        tree.add(file)
    if tree.problems:  # what a file that cannot be read would have said is unknown, so nothing else is judged
        raise ConfigError(tree.problems)
    converter = Converter(tree, environ, files[0] if files else default_path)
    config = converter.convert(Config)
    if converter.problems:
        order = {str(file): number for number, file in enumerate(files)}
        raise ConfigError(sorted(converter.problems, key=lambda problem: _place(problem, order)))
    return cast("Config", config)


def config_files(path: Path | None, *, default_path: Path = DEFAULT_PATH) -> tuple[Path, ...]:
    """The files that a load reads, in the order in which each is laid over those before it."""
    main = default_path if path is None else path
    there = path is not None or main.exists() or main.is_symlink()
    try:
        drop_ins = sorted(main.parent.glob("config.d/*.toml"), key=lambda file: file.name)
    except OSError:
        drop_ins = []  # the main file's own error says why
    return (*((main,) if there else ()), *drop_ins)


def _place(problem: Problem, order: Mapping[str, int]) -> tuple[int, int]:
    return order[problem.file], problem.line or 0
