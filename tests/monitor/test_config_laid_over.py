"""What the command line says in place of the configuration."""

import pytest

from monitor.config.laid_over import laid_over
from monitor.config.output_sections import Web
from monitor.config.problems import ConfigError
from monitor.config.sections import Config


def test_options_replace_what_the_file_says_and_nothing_else() -> None:
    """Without one the configuration is as it was."""
    config = laid_over(Config(), roles="ingest, web", metrics="127.0.0.1:9")
    assert (config.roles, config.metrics.listen) == (("ingest", "web"), "127.0.0.1:9")
    assert laid_over(Config()) == Config()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"roles": "collect,agregate"}, '--roles: "agregate" is no role; name some of collect, ingest, aggregate'),
        ({"roles": ""}, '--roles: "" is no role'),
        ({"roles": "web,web"}, "--roles: roles: names a role twice"),
        ({"metrics": "8097"}, "--metrics: "),
        ({"metrics": "127.0.0.1:1"}, "--metrics: web.listen: is the address of [metrics] too; give each its own port"),
    ],
)
def test_a_wrong_option_is_told_by_its_name(options: dict[str, str], said: str) -> None:
    """And what does not fit the rest of the configuration is too."""
    with pytest.raises(ConfigError) as caught:
        laid_over(Config(web=Web(listen="127.0.0.1:1")), **options)
    assert said in str(caught.value)


def test_what_the_roles_left_out_would_need_is_not_asked_for() -> None:
    """The web's address does not clash where there is no role web."""
    config = Config(web=Web(listen="127.0.0.1:1"))
    assert laid_over(config, roles="collect", metrics="127.0.0.1:1").roles == ("collect",)
