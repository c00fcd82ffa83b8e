"""Role collect: what the model servers' own folders tell of their models, for the host's profile.

A thread of its own reads them: a folder may lie on a file system of the network, and one that hangs must hold up
neither the meters nor what is written.

/proc (KnownServers, command lines) --> config.json --> ModelFacts --> profile_of --> readings in the log
"""

import threading
from collections.abc import Sequence
from typing import Final

import structlog

from collectors.model_folder import ModelFolders, ModelTold
from collectors.readings import ModelFacts
from collectors.servers import SCAN_SECONDS

MOST_MODELS: Final = 256
"""Told of one host: they stand in its profile, which goes with each batch of readings."""
logger = structlog.get_logger()


class ModelFactsRole:
    """`now` gives what is known; between start and stop it is looked for every 30 s."""

    def __init__(self, folders: ModelFolders) -> None:
        self._folders = folders
        self._facts: tuple[ModelFacts, ...] = ()
        self._said: dict[tuple[str, str], ModelTold] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="model-folders", daemon=True)

    def start(self) -> None:
        """Begins to look."""
        self._thread.start()

    def stop(self) -> None:
        """Looks no more. A look that hangs is left behind."""
        self._stop.set()

    def now(self) -> Sequence[ModelFacts]:
        """By name; of servers of one name the first's."""
        return self._facts

    def look(self) -> None:
        """Once; says what is new of each server."""
        told = self._folders.look()
        by_name: dict[str, ModelFacts] = {}
        for each in told:
            for facts in each.facts:
                by_name.setdefault(facts.name, facts)
        self._facts = tuple(by_name[name] for name in sorted(by_name)[:MOST_MODELS])
        for each in told:
            key = each.server, each.model
            if self._said.get(key) != each:
                _say(each)
        self._said = {(each.server, each.model): each for each in told}

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.look()
            except Exception:  # facts are a help: whatever one look meets, the next one is due all the same
                logger.exception("the model servers' folders could not be looked at")
            self._stop.wait(SCAN_SECONDS)


def _say(told: ModelTold) -> None:
    if told.why:
        logger.info("nothing is taken from a model's folder", server=told.server, file=told.path, why=told.why)
    else:
        logger.info("a model's folder was read", server=told.server, file=told.path)
