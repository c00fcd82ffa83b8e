"""The methods side by side: on the example that a person can check by hand, and on a split."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from monitor.cli.replay import replay
from monitor.core.attribution.methods import DEFAULT_METHOD, METHODS, SHORT_NAMES, WHOLE_FIT
from monitor.core.attribution.shape import settled
from monitor.core.membership import Accounting

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "two-requests"


def joules_by_team(method: str) -> dict[str, float]:
    """What `wattribute replay --method` says of the example."""
    result = CliRunner().invoke(replay, [str(EXAMPLE), "--json", "--method", method])
    assert result.exit_code == 0, result.stderr
    books = json.loads(result.stdout)
    assert books["measured_joules"] == pytest.approx(3_000.0)
    assert books["idle_joules"] == pytest.approx(200.0)
    return {row["team"]: row["energy_joules"] for row in books["by"]}


@pytest.mark.parametrize("method", ["learned", "prior", "time-share"])
def test_equal_parts_where_tokens_do_not_weigh(method: str) -> None:
    """600 J alone and 300 J of the 600 J together, each: the model's name tells no size."""
    assert joules_by_team(method) == pytest.approx({"search": 900.0, "support": 900.0})


def test_token_share_goes_by_tokens_alone() -> None:
    """One reading of 10 s: of the 1 800 J A pays 200 of 330 tokens, whoever was alone when."""
    expected = {"search": 1_800.0 * 200 / 330, "support": 1_800.0 * 130 / 330}
    assert joules_by_team("token-share") == pytest.approx(expected)


def test_in_proportion_to_own_tokens_up_as_well_as_down() -> None:
    """100 J and 100 J measured, own 30 J and 10 J: 150 J and 50 J; where nobody has own ones all is left."""
    shared, one = np.array([100.0, 100.0]), np.zeros(2, dtype=np.intp)
    scale, left = settled(shared, np.array([30.0, 10.0]), one, rest_equally=False)
    assert (scale.tolist(), left.tolist()) == ([5.0, 5.0], [0.0, 0.0])
    _, left = settled(shared, np.zeros(2), one, rest_equally=False)
    assert left.tolist() == [100.0, 100.0]


def test_the_default_is_what_books_are_kept_by() -> None:
    """Each name on the command line is one that may stand in the terms."""
    assert Accounting().method == DEFAULT_METHOD == SHORT_NAMES["learned"]
    assert {*SHORT_NAMES.values(), WHOLE_FIT} == set(METHODS)
    (option,) = (each for each in replay.params if each.name == "method")
    assert list(option.type.to_info_dict()["choices"]) == list(SHORT_NAMES)


def test_the_statement_says_that_it_was_fitted_on_the_whole() -> None:
    """Beside the figures; on stderr where these are JSON. Methods that learn nothing have nothing to fit."""
    shown = CliRunner().invoke(replay, [str(EXAMPLE), "--fit", "whole"])
    assert (shown.exit_code, "(--fit whole)" in shown.stdout) == (0, True)
    as_json = CliRunner().invoke(replay, [str(EXAMPLE), "--fit", "whole", "--json"])
    assert json.loads(as_json.stdout)["measured_joules"] == pytest.approx(3_000.0)
    assert "(--fit whole)" in as_json.stderr
    refused = CliRunner().invoke(replay, [str(EXAMPLE), "--fit", "whole", "--method", "prior"])
    assert (refused.exit_code, "--method prior goes by nothing learned" in refused.stderr) == (2, True)


def test_books_by_the_whole_are_not_gone_on_with_causally(tmp_path: Path) -> None:
    """A replay that goes on with them says how they were begun."""
    data = ["--data", str(tmp_path)]
    assert CliRunner().invoke(replay, [str(EXAMPLE), *data, "--fit", "whole"]).exit_code == 0
    assert CliRunner().invoke(replay, [str(EXAMPLE), *data, "--fit", "whole"]).exit_code == 0
    refused = CliRunner().invoke(replay, [str(EXAMPLE), *data])
    assert refused.exit_code != 0
    assert f"kept by the method {WHOLE_FIT}" in str(refused.exception)
