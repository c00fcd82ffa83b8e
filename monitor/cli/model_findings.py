"""Where the facts of each model come from that this host's servers serve. Looks only. Out: findings for `doctor`."""

from collections.abc import Sequence

from collectors.meter import Finding
from collectors.model_folder import ModelFolders, ModelTold
from collectors.readings import ModelFacts
from monitor.config.sections import Config
from monitor.core.attribution.models import TokenCost, token_cost
from monitor.roles.meters import servers_of
from monitor.roles.profile import profile_of

_SOURCES = {
    "given": "[[models]]",
    "folder": "its own folder",
    "table": "the table of open models",
    "name": "the size in its name",
}


def models(config: Config) -> Sequence[Finding]:
    """One for each model that a server's command line names; a command line that names none says nothing."""
    told = ModelFolders(servers_of(config), procfs=config.collect.procfs).look()
    found = [facts for each in told for facts in each.facts]
    facts = {each.name: each for each in profile_of(config, "", (), found).models}
    return [_finding(each, facts) for each in told]


def _finding(told: ModelTold, facts: dict[str, ModelFacts]) -> Finding:
    name = told.names[0]
    cost = token_cost(name, facts.get(name))
    passed_by = f"; {told.path or 'its folder'}: {told.why}" if told.why else ""
    if cost.source == "unknown":
        what = f"nothing is known of its size, so its requests pay equal parts{passed_by}"
        mend = f'parameters of name = "{name}" under [[models]]'
        return Finding(area="models", subject=name, state="warning", what=what, mend=mend)
    return Finding(area="models", subject=name, state="ok", what=f"{_described(cost)}{passed_by}")


def _described(cost: TokenCost) -> str:
    active, kv = cost.flops_per_token / 2e9, cost.kv_bytes_per_token
    estimated = " (estimated from the size)" if cost.kv_estimated else ""
    return f"{active:.4g} billion active parameters by {_SOURCES[cost.source]}, {kv:,.0f} KV bytes a token{estimated}"
