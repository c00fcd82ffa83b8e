"""What a command line may say in place of the configuration, so that the units of all roles share one file."""

from typing import cast, get_args

import msgspec

from monitor.config.output_sections import Metrics
from monitor.config.problems import ConfigError, Faulty, Problem, key_text, shown
from monitor.config.quantities import host_and_port
from monitor.config.sections import Config, Role


def laid_over(config: Config, *, roles: str | None = None, metrics: str | None = None) -> Config:
    """The configuration with these roles ("collect,ingest") and this address of [metrics], checked as a whole again.

    None leaves what the file says. Raises ConfigError, with the option in place of the file.
    """
    if roles is not None:
        config = msgspec.structs.replace(config, roles=_roles(roles))
    if metrics is not None:
        try:
            config = msgspec.structs.replace(config, metrics=Metrics(listen=host_and_port(metrics)))
        except Faulty as error:
            raise _wrong("--metrics", str(error)) from error
    options = " ".join(name for name, text in (("--roles", roles), ("--metrics", metrics)) if text is not None)
    if problems := [_problem(options, message, key_text(key)) for key, message in config.faults()]:
        raise ConfigError(problems)
    return config


def _roles(text: str) -> tuple[Role, ...]:
    names = tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in get_args(Role):
            raise _wrong("--roles", f"{shown(name)} is no role; name some of {', '.join(get_args(Role))}")
    return cast("tuple[Role, ...]", names)


def _wrong(option: str, message: str) -> ConfigError:
    return ConfigError([_problem(option, message)])


def _problem(option: str, message: str, key: str = "") -> Problem:
    return Problem(file=option, line=None, key=key, message=message)
