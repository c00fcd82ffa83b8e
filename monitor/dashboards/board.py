"""The Grafana board with the names of an installation. In: bucket, window. Out: the JSON that Grafana imports.

The board asks in InfluxQL, the one language of InfluxDB 1.x, 2.x and 3.x, and so wants a data source of that language.
The file stands for the default configuration; its variables hold what differs.
"""

import json
from importlib.resources import files
from typing import Any, Final

_PARTS: Final = {"windows": "", "hours": "_hours", "days": "_days", "provisional": "_provisional"}


def grafana_board(*, bucket: str, window_seconds: float) -> dict[str, Any]:
    """The board for these buckets (BUCKET, BUCKET_hours ..) and windows of that length."""
    board: dict[str, Any] = json.loads(files(__package__).joinpath("grafana.json").read_text(encoding="utf-8"))
    buckets = {name: bucket + part for name, part in _PARTS.items()}
    constants = buckets | {"window_seconds": f"{window_seconds:g}"}
    for variable in board["templating"]["list"]:
        if variable["type"] == "constant":
            value = constants[variable["name"]]
            variable["query"] = value
            variable["current"] = {"text": value, "value": value}
            variable["options"] = [{"text": value, "value": value, "selected": True}]
        elif variable["name"] == "source":
            for option in variable["options"]:
                option["value"] = buckets[option["text"]]
            variable["query"] = ", ".join(f"{option['text']} : {option['value']}" for option in variable["options"])
            variable["current"] = variable["options"][0]
    for panel in board["panels"]:
        if "interval" in panel:  # a step shorter than a window would have nothing in it
            panel["interval"] = f"{window_seconds:g}s"
    return board
