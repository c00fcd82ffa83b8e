"""Runs every bench module here, or those named: `python -m bench attribution`. Each has `run() -> list[str]`."""

import sys
from importlib import import_module
from pkgutil import iter_modules

import bench


def main(names: list[str]) -> int:
    """Prints a heading and the lines of each bench. Exit code 2 for a name that is none."""
    known = [module.name for module in iter_modules(bench.__path__) if not module.name.startswith("_")]
    if unknown := [name for name in names if name not in known]:
        print(f"no bench named {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    for name in names or known:
        print(f"== {name}")
        for line in import_module(f"bench.{name}").run():
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
