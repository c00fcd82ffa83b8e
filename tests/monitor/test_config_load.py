"""Loading: what is right becomes a Config, what is wrong is named with file, line and key, all of it at once."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config.load import config_files, load_config
from monitor.config.problems import ConfigError, Problem
from monitor.config.sample import sample_text
from monitor.config.sections import Config


def load(folder: Path, text: str | bytes, **environ: str) -> Config:
    file = folder / "config.toml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_config(file, environ=environ)


def problems(folder: Path, text: str | bytes, **environ: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **environ)
    return caught.value.problems


def test_values_become_base_units(tmp_path: Path) -> None:
    """Durations are seconds, sizes bytes, relative paths those of the file's folder."""
    text = """
        roles = ["collect"]
        data.directory = "books"
        [host]
        zone = "US-CAL-CISO"
        pue = 2
        [[host.devices]]
        id = "GPU-1"
        idle_watts = 62
        [accounting]
        window = "1m"
        label_keys = []
        [log]
        max_size = "500MB"
        [[sources]]
        name = "a"
        kind = "recording"
        path = "runs/a"
        speed = "max"
        [[alerts]]
        name = "hot"
        measure = "power_watts"
        above = 300
        for = "5m"
        webhook_url_file = "url"
        """
    (tmp_path / "url").write_text("https://hooks.example/1")
    config = load(tmp_path, text)
    assert config.roles == ("collect",)
    assert config.data.directory == tmp_path / "books"
    assert (config.host.zone, config.host.pue, type(config.host.pue)) == ("US-CAL-CISO", 2.0, float)
    assert (config.host.devices[0].idle_watts, config.host.devices[0].parent) == (62.0, None)
    assert (config.accounting.window_seconds, config.accounting.label_keys) == (60.0, ())
    assert config.log.max_size_bytes == 500_000_000
    assert (config.sources[0].path, config.sources[0].speed) == (tmp_path / "runs/a", math.inf)
    assert (config.alerts[0].for_seconds, config.alerts[0].above) == (300.0, 300.0)


@pytest.mark.parametrize(
    ("text", "line", "key", "said"),
    [
        ("roels = []", 1, "roels", 'did you mean "roles"?'),
        ('\nzone = "FR"', 2, "zone", "it belongs under [host]"),
        ("[host]\nxyzzy = 1", 2, "host.xyzzy", "known here are name, zone, site, pue, devices"),
        ('[host]\n"a\\nb" = 1', 2, r'host."a\nb"', "unknown key"),
        ("[acounting]\nwindow = '10s'", 1, "acounting", 'did you mean "accounting"?'),
        ("[collect.nvlm]", 1, "collect.nvlm", 'did you mean "nvml"?'),
        ("[accounting]\nwindow = 10", 2, "accounting.window", 'no unit; write it in quotes with one, as in "10s"'),
        ("[accounting]\nwindow = '10'", 2, "accounting.window", "has no unit"),
        (
            "accounting.window = true",
            1,
            "accounting.window",
            'true; it must be a text in quotes with a unit, as in "10s"',
        ),
        ("[log]\nmax_size = 10", 2, "log.max_size", 'as in "10GiB"'),
        ("[accounting]\nwindow = '7s'", 2, "accounting.window", "must divide an hour"),
        ("[accounting]\nwindow = '1m'\nhorizon = '30s'", 3, "accounting.horizon", "must not be shorter than window"),
        ("[log]\nretention = '7d'", 1, "log.restate_within", "must be shorter than retention"),
        ("[log]\nretention = '1d'\nrestate_within = '2d'", 3, "log.restate_within", "must be shorter than retention"),
        ("[log]\nrestate_within = '20m'", 2, "log.restate_within", "must not be shorter than [accounting]"),
        ("[store]\nwindows_retention = '7d'", 2, "store.windows_retention", "at least a day longer"),
        ("[store]\nkind = 'influxdb'", 1, "influxdb.url", "is missing"),
        ("[store]\nkind = 'duckdb'", 2, "store.kind", '"duckdb" is not one of "influxdb", "sqlite"'),
        ("[host]\npue = 0.9", 2, "host.pue", "it must be at least 1"),
        ("[host]\npue = nan", 2, "host.pue", "it must be finite"),
        ("[host]\npue = inf", 2, "host.pue", "it must be finite"),
        (f"[host]\npue = 1{'0' * 400}", 2, "host.pue", "a very large number is out of range"),
        ("[host]\npue = true", 2, "host.pue", "is true; it must be a number"),
        ("[host]\npue = '1.2'", 2, "host.pue", 'is "1.2"; it must be a number'),
        ("[host]\npue = 2020-01-01", 2, "host.pue", "is 2020-01-01; it must be a number"),
        ("[host]\nname = 5", 2, "host.name", "is 5; it must be a text in quotes"),
        ('[host]\nname = "a\\u0000"', 2, "host.name", "is not a name"),
        ("[host]\nzone = 'UK'", 2, "host.zone", 'did you mean "GB"?'),
        ("[kafka.topics]\npartitions = 1.5", 2, "kafka.topics.partitions", "is 1.5; it must be a whole number"),
        ("[kafka.topics]\npartitions = 0", 2, "kafka.topics.partitions", "at least 1"),
        ("[collect.rapl]\nenabled = 1", 2, "collect.rapl.enabled", "is 1; it must be true or false"),
        ("roles = 'collect'", 1, "roles", "it must be a list"),
        ("roles = []", 1, "roles", "is too short"),
        ("roles = ['web', 'web']", 1, "roles", "names a role twice"),
        ("roles = [\n'collect',\n'colect']", 3, "roles[1]", "is not one of"),
        ("host = 'a'", 1, "host", "it must be a table"),
        ("[[host]]\nname = 'a'", 1, "host", "write [host]"),
        ("[sources]\nname = 'a'", 1, "sources", "write [[sources]]"),
        ("[[sources]]\nname = 'a'", 1, "sources[0].kind", "is missing"),
        ("[[sources]]\nname = 'a'\nkind = 'file'", 1, "sources[0].path", 'kind = "file" needs it'),
        (
            "[[sources]]\nname = 'a'\nkind = 'http'\nlisten = '[::]:80'\npath = 'x'",
            5,
            "sources[0].path",
            "means nothing for a source",
        ),
        (
            "[[models]]\nname = 'a'\n[[models]]\nname = 'b'\n[[models]]\nname = 'a'",
            6,
            "models[2].name",
            "config.toml:2; give each",
        ),
        (
            "[[alerts]]\nname = 'a'\n[[alerts]]\nname = 'a'",
            4,
            "alerts[1].name",
            "is taken by",
        ),
        ("[[deployments]]\nname = 'd'\nmodel = 'm'\nhosts = []", 4, "deployments[0].hosts", "at least 1"),
        (
            f"accounting.label_keys = {[f'k{n}' for n in range(11)]}",
            1,
            "accounting.label_keys",
            "at most 10 are allowed",
        ),
        ("[collect.engine]\nurls = ['']", 2, "collect.engine.urls", "empty URL"),
        ("[[collect.engine.servers]]\nurl = ''", 2, "collect.engine.servers[0].url", "is empty"),
        (
            "[collect.engine]\nurls = ['http://a:1']\n[[collect.engine.servers]]\nurl = 'http://a:1'",
            4,
            "collect.engine.servers[0].url",
            "is in urls too",
        ),
        (
            "[[collect.engine.servers]]\nurl='http://a'\nname='n'\n[[collect.engine.servers]]\nurl='http://b'\nname='n'",
            6,
            "collect.engine.servers[1].name",
            "another server's name",
        ),
        ("[accuracy]\ngain = 1", 2, "accuracy.gain", "less than 1"),
        ("[accuracy]\ngains = { 'gpu-01' = 1.5 }", 2, "accuracy.gains.gpu-01", "less than 1"),
        ("[idle]\nowners = { 'gpu 1' = 3 }", 2, 'idle.owners."gpu 1"', "it must be a text"),
        ("[carbon]\ntoken_file = 'gone'", 2, "carbon.token_file", '"gone" cannot be read (No such file'),
        ("[carbon]\ntoken_file = '/'", 2, "carbon.token_file", "is not a file"),
        ("[carbon]\ntoken_file = 'config.toml/x'", 2, "carbon.token_file", "cannot be read (Not a directory)"),
        ('[carbon]\ntoken_file = "\\u0000"', 2, "carbon.token_file", "is not a path"),
        (
            "[[alerts]]\nname='a'\nmeasure='power_watts'\nabove=1\nwebhook_url_file=''",
            5,
            "alerts[0].webhook_url_file",
            "must not be empty",
        ),
        ("[kafka]\nsecurity = 'sasl_tls'\npassword_file='config.toml'", 1, "kafka.user", "needs it"),
        ("[host]\nsite = '${NOWHERE}'", 2, "host.site", "variable NOWHERE is not set"),
        ("[data]\ndirectory = ''", 2, "data.directory", "must not be empty"),
        # Files that are not TOML at all have a line, but no key.
        ("a = 1\nb = = 2", 2, "", "not TOML"),
        ("[host]\nname = 'a'\nname = 'b'", 3, "", "not TOML: Cannot overwrite a value"),
        ("[host]\n\nname = 'a", 3, "", "not TOML"),
        ('x = """\n\n', 3, "", "not TOML"),
        ("a = 1\x00", 1, "", "not TOML"),
        (b"\xef\xbb\xbfroles = []", 1, "", "byte order mark"),
        ("roles = []".encode("utf-16"), 1, "", "byte order mark"),
        (b"[host]\nname = '\xe9'", 2, "", "is not UTF-8"),
        ("x = " + "[" * 100_000, None, "", "nested too deep"),
        ("x = " + "9" * 5_000, None, "", "cannot be read: Exceeds the limit"),
        ("#" * (2**20 + 1), None, "", "larger than 1 MiB"),
    ],
)
def test_bad_file(tmp_path: Path, text: str | bytes, line: int | None, key: str, said: str) -> None:
    """Each mistake is named with its line and key, and nothing else is complained about at that place."""
    found = [problem for problem in problems(tmp_path, text) if problem.key == key and said in problem.message]
    assert [(problem.file, problem.line) for problem in found] == [(str(tmp_path / "config.toml"), line)]


def test_all_mistakes_are_shown_together(tmp_path: Path) -> None:
    """One load finds every wrong key, in the order of the lines."""
    found = problems(tmp_path, "[host]\npue = 0\nzone = 'XX'\n[log]\nretention = 3\nmax_sise = '1B'\n")
    assert [(problem.line, problem.key) for problem in found] == [
        (2, "host.pue"),
        (3, "host.zone"),
        (5, "log.retention"),
        (6, "log.max_sise"),
    ]


def test_environment_reaches_texts_only_after_parsing(tmp_path: Path) -> None:
    """A value with quotes and line breaks stays one value, and is not repeated where it is wrong."""
    config = load(tmp_path, "[host]\nsite = '${SITE:-here}'\nname = '$${x}'\n", SITE='a"b')
    assert (config.host.site, config.host.name) == ('a"b', "${x}")
    (problem,) = problems(tmp_path, "[accounting]\nwindow = '${SECRET}'\n", SECRET="s3cret")
    assert "s3cret" not in str(problem)
    assert '"${SECRET}" is not a duration' in problem.message
    (problem,) = problems(tmp_path, "[carbon]\ntoken_file = '${DIR}/token'\n", DIR=str(tmp_path))
    assert '"${DIR}/token" cannot be read' in problem.message


def test_secret_is_a_path_not_its_content(tmp_path: Path) -> None:
    """The configuration holds the name of the secret's file, found from the file's own folder."""
    (tmp_path / "token").write_text("s3cret")
    config = load(tmp_path, "[carbon]\ntoken_file = 'token'\n")
    assert config.carbon.token_file == tmp_path / "token"
    assert "s3cret" not in repr(config)


def test_drop_ins_are_laid_over_in_name_order(tmp_path: Path) -> None:
    """Tables merge, arrays of tables append, anything else is replaced by the later file."""
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/20-b.toml").write_text(
        "[host]\nsite = 'b'\n[[models]]\nname = 'm3'\n[accounting]\nlabel_keys = ['b']\n"
    )
    (tmp_path / "config.d/10-a.toml").write_text("[host]\nsite = 'a'\npue = 1.5\n[[models]]\nname = 'm2'\n")
    (tmp_path / "config.d/notes.txt").write_text("not read")
    main = "[host]\nname = 'gpu-01'\nsite = 'main'\n[accounting]\nlabel_keys = ['a']\n[[models]]\nname = 'm1'\n"
    config = load(tmp_path, main)
    assert (config.host.name, config.host.site, config.host.pue) == ("gpu-01", "b", 1.5)
    assert [model.name for model in config.models] == ["m1", "m2", "m3"]
    assert config.accounting.label_keys == ("b",)


def test_mistake_in_a_drop_in_is_placed_there(tmp_path: Path) -> None:
    """The file and line of a problem are those of the text that holds the value."""
    (tmp_path / "config.d").mkdir()
    drop_in = tmp_path / "config.d/a.toml"
    drop_in.write_text("\n[[models]]\nname = 'm'\n\n[host]\npue = 0\n")
    found = problems(tmp_path, "[host]\nzone = 'XX'\n[[models]]\nname = 'm'\n")
    main = str(tmp_path / "config.toml")
    assert [(problem.file, problem.line, problem.key) for problem in found] == [
        (main, 2, "host.zone"),
        (str(drop_in), 3, "models[1].name"),
        (str(drop_in), 6, "host.pue"),
    ]
    assert f"{main}:4" in found[1].message


def test_every_unreadable_file_is_named(tmp_path: Path) -> None:
    """Files that cannot be read are all named, and what the others say is not judged without them."""
    (tmp_path / "config.d").mkdir()
    (tmp_path / "config.d/a.toml").write_text("x = ")
    (tmp_path / "config.d/b.toml").symlink_to("b.toml")
    found = problems(tmp_path, "[store]\nkind = 'influxdb'\n")
    assert [(Path(problem.file).name, problem.line) for problem in found] == [("a.toml", 1), ("b.toml", None)]


def test_folder_missing_file_and_device_are_refused(tmp_path: Path) -> None:
    """What is not a file with text in it is named as such, and never waited for."""
    for path, said in [
        (tmp_path, "is not a file"),
        (tmp_path / "gone.toml", "No such file"),
        (Path("/dev/zero"), "is not a file"),
        (tmp_path / ("x" * 300), "File name too long"),
    ]:
        with pytest.raises(ConfigError, match=said) as caught:
            load_config(path, environ={})
        assert [(problem.file, problem.line) for problem in caught.value.problems] == [(str(path), None)]


def test_default_path_is_used_where_it_exists(tmp_path: Path) -> None:
    """Without a path the default file counts, with its drop-ins; without that, the built-in defaults."""
    default = tmp_path / "config.toml"
    assert load_config(None, environ={}, default_path=default) == Config()
    assert config_files(None, default_path=default) == ()
    default.write_text("[host]\nname = 'a'\n")
    assert load_config(None, environ={}, default_path=default).host.name == "a"
    default.unlink()
    default.symlink_to("gone")
    with pytest.raises(ConfigError, match="No such file"):
        load_config(None, environ={}, default_path=default)


HEADERS = ("[host]", "[[sources]]", "[log]")
WORDS = ("name", "pue", "window", "kind", "'10s'", "10", "1e999", "nan", "true", "2020-01-01")
SIGNS = ("=", "[", "]", "{", "}", ".", ",", "#", "${", "\\", "\n", " ", '"""', "'''", '"', "\x00", "\ufeff")
FRAGMENTS = st.sampled_from([*HEADERS, *WORDS, *SIGNS])


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(), st.lists(FRAGMENTS).map("".join), st.binary()))
def test_any_text_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, text: str | bytes) -> None:
    """Whatever is in the file, the outcome is a Config or a ConfigError with at least one problem."""
    _load_or_refuse(tmp_path_factory.getbasetemp() / "config.toml", text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_loads_or_is_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A sample with a piece cut out or put in never does anything worse than name its mistakes."""
    text = sample_text().replace("\n# ", "\n")
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 40)))
    damaged = text[:start] + data.draw(st.one_of(st.text(max_size=5), FRAGMENTS)) + text[end:]
    _load_or_refuse(tmp_path_factory.getbasetemp() / "config.toml", damaged)


def _load_or_refuse(file: Path, text: str | bytes) -> None:
    file.write_bytes(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)
    found: tuple[Problem, ...] = ()
    try:
        load_config(file, environ={})
    except ConfigError as error:
        found = error.problems or (Problem(file="", line=None, key="", message="refused without a\nreason"),)
    assert all("\n" not in str(problem) for problem in found)


def test_two_listeners_on_one_address_are_a_mistake(tmp_path: Path) -> None:
    """The second is named, and whose address it is."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[[sources]]\nname = "a"\nkind = "http"\nlisten = "127.0.0.1:8095"\n'
        '[[sources]]\nname = "b"\nkind = "http"\nlisten = "127.0.0.1:8097"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file, environ={})
    assert [(problem.line, problem.message) for problem in caught.value.problems] == [
        (4, "is the address of [web] too; give each its own port"),
        (8, "is the address of [metrics] too; give each its own port"),
    ]
