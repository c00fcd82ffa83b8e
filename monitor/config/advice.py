"""What is allowed but probably not meant: for `check` to show, and for a role to log when it starts."""

from collections.abc import Iterator

from monitor.config.sections import Config


def warnings(config: Config) -> tuple[str, ...]:
    """One sentence for each doubt, in the order of the sample; empty if there is none."""
    return (*_of_the_host(config), *_of_the_flow(config), *_not_read_yet(config))


def _of_the_host(config: Config) -> Iterator[str]:
    if "collect" in config.roles and not config.host.zone:
        yield 'host.zone is not set: emissions will be missing, not zero; set it as in zone = "FR"'


def _of_the_flow(config: Config) -> Iterator[str]:
    if "ingest" in config.roles and not config.sources:
        yield "there are no [[sources]]: no request will be known, and no energy attributed"
    fleet = bool(config.kafka.bootstrap_servers)
    for source in config.sources:
        if source.kind == "kafka" and not fleet:
            yield f"source {source.name} reads topics, but kafka.bootstrap_servers is empty: nothing comes from it"
    if not fleet and ("collect" in config.roles) != ("aggregate" in config.roles):
        yield "collect and aggregate are apart, but kafka.bootstrap_servers is empty: nothing carries the readings"
    keepers = [role for role in ("aggregate", "control", "web") if role in config.roles]
    if fleet and keepers and config.store.kind == "sqlite":
        yield (
            f'store.kind = "sqlite" with Kafka: {" and ".join(keepers)} of this process sees a store of its own, and'
            ' another process another one; set it to "influxdb"'
        )
    if config.kafka.security == "sasl_plaintext" and config.kafka.sasl_mechanism in ("plain", "oauthbearer"):
        yield 'kafka.security = "sasl_plaintext": the secret crosses the network in the clear; use "sasl_tls"'
    if "web" in config.roles and not config.web.listen.startswith(("127.", "localhost:", "[::1]:")):
        yield f"web.listen = {config.web.listen}: there is no login, whoever reaches it reads every team's figures"


def _not_read_yet(config: Config) -> Iterator[str]:
    default = Config()
    if config.carbon.source != default.carbon.source:
        yield f'carbon.source = "{config.carbon.source}" is right, but this version only has "{default.carbon.source}"'
