"""The line of every key of a TOML text."""

import tomllib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.config.locate import locate_keys
from monitor.config.problems import KeyPath

TRICKY_LINES = (
    "# [fake] key = 1",
    'top = "[not] # a = table" # top = 2',
    "",
    "[a.b] # the table a is implied",
    """'quoted key' = 'x # "y"'""",
    r'"tab\tkey" = """',
    "fake = 1",
    "[fake]",
    r'escaped \""" and "two quotes"" at the end"""""',
    "many = [ # comment with ] and ,",
    "  1,",
    '  "]",',
    "  [2, 3],",
    """  { x = 1, "y.z" = [ { deep = 'a}b' } ] },""",
    "]",
    "after.dotted . key = 1979-05-27 07:32:00",
    "",
    "[[list]]",
    'name = "first"',
    "[list.sub]",
    "k = 1",
    "[[list.inner]]",
    "k = 2",
    "[[list.inner]]",
    "k = 3",
    "[[list]]",
    "name = '''",
    "[[list]]",
    "'''",
    "last = -1e3",
    "[a]",
    "late = true",
)


def test_every_line_of_a_tricky_text() -> None:
    """Comments, strings of all four kinds, nested lists and dotted keys do not move a line."""
    assert locate_keys("\n".join(TRICKY_LINES)) == {
        ("top",): 2,
        ("a",): 31,
        ("a", "b"): 4,
        ("a", "b", "quoted key"): 5,
        ("a", "b", "tab\tkey"): 6,
        ("a", "b", "many"): 10,
        ("a", "b", "many", 0): 11,
        ("a", "b", "many", 1): 12,
        ("a", "b", "many", 2): 13,
        ("a", "b", "many", 2, 0): 13,
        ("a", "b", "many", 2, 1): 13,
        ("a", "b", "many", 3): 14,
        ("a", "b", "many", 3, "x"): 14,
        ("a", "b", "many", 3, "y.z"): 14,
        ("a", "b", "many", 3, "y.z", 0): 14,
        ("a", "b", "many", 3, "y.z", 0, "deep"): 14,
        ("a", "b", "after"): 16,
        ("a", "b", "after", "dotted"): 16,
        ("a", "b", "after", "dotted", "key"): 16,
        ("list",): 18,
        ("list", 0): 18,
        ("list", 0, "name"): 19,
        ("list", 0, "sub"): 20,
        ("list", 0, "sub", "k"): 21,
        ("list", 0, "inner"): 22,
        ("list", 0, "inner", 0): 22,
        ("list", 0, "inner", 0, "k"): 23,
        ("list", 0, "inner", 1): 24,
        ("list", 0, "inner", 1, "k"): 25,
        ("list", 1): 26,
        ("list", 1, "name"): 27,
        ("list", 1, "last"): 30,
        ("a", "late"): 32,
    }


def test_windows_line_ends_count_once() -> None:
    """A line that ends in CR LF is one line."""
    assert locate_keys("a = 1\r\n\r\nb = 2\r\n") == {("a",): 1, ("b",): 3}


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment"])
def test_nothing_to_locate(text: str) -> None:
    """A text without keys has no lines."""
    assert locate_keys(text) == {}


KEYS = st.sampled_from(["a", "b", '"c d"', "'e.f'", '"\\u0041"', "1", "a.b", "b . 'x'"])
SCALARS = st.sampled_from(
    [
        "1",
        "true",
        "1.5e3",
        "nan",
        "2020-01-01",
        '"#]}"',
        "'''\n[a]\n'''",
        '"""x\n""\\""""',
        '""',
        "''",
        '""""""',
        "0x1F",
    ]
)
BLANKS = st.sampled_from(["", " ", "\n", " # c ] }\n", "\r\n"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.tuples(BLANKS, st.lists(inner, max_size=3), BLANKS, BLANKS).map(
            lambda parts: f"[{parts[0]}{f' ,{parts[2]}'.join(parts[1])}{parts[3]}]"
        ),
        st.lists(st.tuples(KEYS, inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f"{key} = {value}" for key, value in pairs) + "}"
        ),
    ),
    max_leaves=8,
)
STATEMENTS = st.one_of(
    st.tuples(KEYS, VALUES).map(lambda pair: f"{pair[0]}={pair[1]}"),
    KEYS.map(lambda key: f"[{key}]"),
    KEYS.map(lambda key: f"[[{key}]]"),
    st.just("# [x] = 1"),
)


@given(st.lists(STATEMENTS, max_size=8), st.sampled_from(["\n", "\r\n", "\n\n"]))
def test_locates_exactly_the_keys_that_tomllib_reads(statements: list[str], line_end: str) -> None:
    """Whatever tomllib accepts, each of its keys and elements has a line within the text, and nothing else has."""
    text = line_end.join(statements)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    lines = locate_keys(text)
    assert set(lines) == set(_paths(values, ()))
    assert all(1 <= line <= text.count("\n") + 1 for line in lines.values())


def _paths(value: object, path: KeyPath) -> Iterator[KeyPath]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield (*path, key)
        yield from _paths(child, (*path, key))
