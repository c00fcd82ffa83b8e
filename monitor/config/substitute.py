"""${VAR}, ${VAR:-default} and ${VAR:?message} in a string, after the file is parsed, so that no value can break it.

`$${` stands for the characters `${`. As in a shell, `:-` and `:?` take an empty variable for an absent one.
"""

import re
from collections.abc import Mapping

from monitor.config.problems import Faulty, shown

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)\}|\$\{")
_BODY = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::([-?])(.*))?", re.DOTALL)


def substitute(text: str, environ: Mapping[str, str]) -> str:
    """The string with its references replaced, once (what a variable holds is not read again). Raises Faulty."""
    return _REFERENCE.sub(lambda match: _replacement(match, environ), text) if "${" in text else text


def _replacement(match: re.Match[str], environ: Mapping[str, str]) -> str:
    if match.group() == "$${":
        return "${"
    body = _BODY.fullmatch(match.group(1) or "")
    if body is None:
        raise Faulty(f'{shown(match.group())} is not a reference; write "${{NAME}}", or "$${{" for the characters')
    name, operator, operand = body.groups()
    value = environ.get(name)
    if value or (value is not None and operator is None):
        return value
    if operator == "-":
        return str(operand)
    if operator == "?" and operand:
        raise Faulty(f"environment variable {name}: {shown(operand)[1:-1]}")
    raise Faulty(f'environment variable {name} is not set; set it, or write "${{{name}:-default}}"')
