"""The sample is the default, and names every key there is."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from msgspec import inspect

from monitor.config.load import load_config
from monitor.config.sample import sample_text
from monitor.config.schema import struct_type, tables, wanted
from monitor.config.sections import Config

ROOT = Path(__file__).parents[2]
DEFAULT_LINE = re.compile(r"^# (?=\w+ = )", re.MULTILINE)
EXAMPLE_LINE = re.compile(r"^##   (?=\S)", re.MULTILINE)


def load(folder: Path, text: str) -> Config:
    file = folder / "config.toml"
    file.write_text(text)
    return load_config(file, environ={})


def test_sample_as_it_stands_is_the_default(tmp_path: Path) -> None:
    """An untouched sample changes nothing."""
    assert load(tmp_path, sample_text()) == Config()


def test_sample_shows_the_defaults(tmp_path: Path) -> None:
    """With every shown key made active the sample still says the default."""
    assert load(tmp_path, DEFAULT_LINE.sub("", sample_text())) == Config()


def test_sample_examples_are_right(tmp_path: Path) -> None:
    """Every example in the sample can be used once its secret file is there."""
    (tmp_path / "webhook-url").write_text("https://hooks.example/1")
    text = EXAMPLE_LINE.sub("", sample_text()).replace("/etc/wattribute", str(tmp_path))
    config = load(tmp_path, text)
    assert [source.kind for source in config.sources] == ["recording", "file", "http", "kafka", "kafka"]
    assert config.sources[0].path == tmp_path / "recordings/a100"
    assert [server.name for server in config.collect.engine.servers] == ["llama-1"]
    assert [alert.for_seconds for alert in config.alerts] == [1800.0]
    assert config.idle.owners == {"gpu-01": "search", "gpu-02/GPU-5c7f7b0e": "platform"}


def test_sample_names_every_key_in_the_order_of_the_types() -> None:
    """Tables and keys of the sample are those of the types, in their order, and no others."""
    config = struct_type(Config)
    expected = {name: [key for key in keys if not _is_table(name, key)] for name, keys in tables(config)}
    shown = _shown_keys(sample_text())
    assert list(shown) == list(expected)
    for table, runs in shown.items():
        order = expected[table]
        for run in runs:
            assert run == [key for key in order if key in run], table
        assert {key for run in runs for key in run} == set(order), table


def _is_table(table: str, key: str) -> bool:
    return (f"{table}.{key}" if table else key) in dict(tables(struct_type(Config)))


def _shown_keys(text: str) -> dict[str, list[list[str]]]:
    """Per table the runs of keys shown under each of its headers, active or not, examples included."""
    shown: dict[str, list[list[str]]] = {"": [[]]}
    table = ""
    for line in EXAMPLE_LINE.sub("", DEFAULT_LINE.sub("", text)).splitlines():
        if header := re.fullmatch(r"\[\[?([\w.]+)\]\]?", line):
            table = header.group(1)
            shown.setdefault(table, []).append([])
        elif (pair := re.match(r"(\w+) = ", line)) and pair.group(1) not in shown[table][-1]:
            shown[table][-1].append(pair.group(1))
    return shown


def test_every_type_has_a_reader() -> None:
    """A file can give every field a value: each type is one that the loader converts."""
    converted = (
        inspect.StructType,
        inspect.VarTupleType,
        inspect.DictType,
        inspect.LiteralType,
        inspect.StrType,
        inspect.FloatType,
        inspect.IntType,
        inspect.BoolType,
    )
    for field in _all_fields(struct_type(Config)):
        want = wanted(field.type)
        assert want.reader or isinstance(want.kind, converted), field.name


def _all_fields(struct: inspect.StructType) -> list[inspect.Field]:
    fields = list(struct.fields)
    for field in struct.fields:
        kind = wanted(field.type).kind
        if isinstance(kind, inspect.VarTupleType):
            kind = wanted(kind.item_type).kind
        if isinstance(kind, inspect.StructType):
            fields += _all_fields(kind)
    return fields


def test_wheel_carries_the_sample(tmp_path: Path) -> None:
    """A wheel built from the sources holds the sample as a file of its own, where the code looks for it."""
    source = tmp_path / "source"
    for package in ("collectors", "monitor"):
        shutil.copytree(ROOT / package, source / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE", "config.toml"):
        shutil.copy(ROOT / file, source / file)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*pip, *options], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("wattribute-*.whl")
    shutil.rmtree(source)
    code = "from monitor.config.sample import sample_text; print(sample_text(), end='')"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=tmp_path / "installed")
    assert printed.stdout == (ROOT / "config.toml").read_bytes()
