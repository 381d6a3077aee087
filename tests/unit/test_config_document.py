"""A configuration file is read with the line of each key, and every trouble with it is told."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.document import Document, Problem, Value, read, substituted
from common.errors import ConfigError

ENVIRONMENT = {"NAME": "value", "EMPTY": "", "YAML": "{a: [1, 2]} # no\n- x", "PORT": "2222"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def document(file: Path, text: str, environment: Mapping[str, str] = ENVIRONMENT) -> Document:
    file.write_text(text)
    return read(file, environment)


def refused(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read(file, ENVIRONMENT)
    assert caught.value.hint
    return caught.value.message.replace(str(file), "FILE")


def test_every_key_and_item_has_its_line(file: Path) -> None:
    found = document(file, "a: 1\nb:\n  c: x\n  d:\n    - y\n    - {e: z}\n")
    assert found.data == {"a": "1", "b": {"c": "x", "d": ["y", {"e": "z"}]}}
    assert found.lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "d"): 4,
        ("b", "d", 0): 5,
        ("b", "d", 1): 6,
        ("b", "d", 1, "e"): 6,
    }


def test_a_problem_stands_at_its_key_or_at_what_surrounds_it(file: Path) -> None:
    found = document(file, "\na:\n  b: 1\n")
    keys = [("a", "b"), ("a", "missing"), ("missing",)]
    assert [found.problem(key, "").line for key in keys] == [3, 2, 2]


@pytest.mark.parametrize(
    "written", ["1:30", "on", "off", "yes", "No", "022", "0x1F", "1_000", ".5", "2020-01-01"]
)
def test_no_scalar_changes_by_its_looks(file: Path, written: str) -> None:
    assert document(file, f"key: {written}").data == {"key": written}


@pytest.mark.parametrize("written", ["", "~", "null", "${EMPTY}", "${NONE:-}", "${NONE:-null}", "!!null x"])
def test_nothing_is_nothing(file: Path, written: str) -> None:
    assert document(file, f"key: {written}").data == {"key": None}


@pytest.mark.parametrize(("written", "value"), [("'null'", "null"), ('""', "")])
def test_a_quoted_text_is_never_nothing(file: Path, written: str, value: str) -> None:
    assert document(file, f"key: {written}").data == {"key": value}


def test_anchors_and_merges_work_and_own_keys_prevail(file: Path) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  z: 3\n  <<: [*a, *b]\nd: *b\ne: {<<: *b, y: 4}\n"
    found = document(file, text)
    assert found.problems == ()
    assert found.data["c"] == {"x": "1", "y": "1", "z": "3"}
    assert found.data["d"] == {"y": "2", "z": "2"}
    assert found.data["e"] == {"y": "4", "z": "2"}
    assert [found.problem(key, "").line for key in (("c", "x"), ("c", "z"), ("d",))] == [1, 4, 6]


def test_a_key_that_is_given_twice_is_told(file: Path) -> None:
    found = document(file, "a:\n  b: 1\n  c: 1\n  b: 2\n")
    assert found.problems == (Problem(4, "a.b", "is given twice, first in line 2"),)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("${NAME}", "value"),
        ("'${NAME}'", "value"),
        ("x-${NAME}-${NAME}", "x-value-value"),
        ("${PORT:-22}", "2222"),
        ("${NONE:-22}", "22"),
        ("${EMPTY:-22}", "22"),
        ("'${EMPTY}'", ""),
        ("'${YAML}'", ENVIRONMENT["YAML"]),
        ("${YAML}", ENVIRONMENT["YAML"]),
        ("$${NAME}", "${NAME}"),
        (r"'\.tmp$'", r"\.tmp$"),
        ("a$b", "a$b"),
        ("$$", "$$"),
    ],
)
def test_variables_are_filled_in_after_the_yaml_was_read(file: Path, written: str, value: str) -> None:
    found = document(file, f"key: {written}")
    assert (found.data, found.problems) == ({"key": value}, ())


def test_variables_are_filled_in_everywhere_but_in_keys(file: Path) -> None:
    found = document(file, "${NAME}: {list: ['${NAME}', {deep: '${NAME}'}]}")
    expected: dict[str, Value] = {"${NAME}": {"list": ["value", {"deep": "value"}]}}
    assert found.data == expected


def test_an_undefined_variable_is_told_with_its_line(file: Path) -> None:
    (problem,) = document(file, "a: 1\nb: {c: '${MISSING}/x'}\n").problems
    assert (problem.line, problem.key) == (2, "b.c")
    assert problem.message.startswith("the environment variable MISSING is not set")


@pytest.mark.parametrize(
    "written", ["${", "${NAME", "${}", "${1}", "${NAME-x}", "${NAME:x}", "${A:-${NAME}}"]
)
def test_a_malformed_variable_is_told(file: Path, written: str) -> None:
    (problem,) = document(file, f"key: '{written}'").problems
    assert "write ${NAME} or ${NAME:-default}" in problem.message


@given(st.text(alphabet="${}:-aB\n"))
def test_every_text_can_be_escaped(text: str) -> None:
    assert substituted(text.replace("${", "$${"), {}) == (text, [])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "FILE:1: the file is empty"),
        (b"# only a comment\n", "FILE:1: the file is empty"),
        (b"- a\n- b\n", "FILE:1: must be a mapping of sections, not a list"),
        (b"\nhello\n", "FILE:1: must be a mapping of sections, not 'hello'"),
        (b"a: 1\nb: \xe9\n", "FILE:2: is not UTF-8 (byte 0xe9)"),
        (b"a: 1\nb: \x07\n", "FILE:2: the character U+0007 can't stand in a YAML file"),
        (b"a: 1\n b: 2\n", "FILE:2: is not valid YAML: mapping values are not allowed here"),
        (b"a: [1\nb: 2\n", "FILE:2: is not valid YAML: expected ',' or ']'"),
        (b"a:\n\tb: 1\n", "FILE:2: is not valid YAML: found character '\\t'"),
        (b"a: *x\n", "FILE:1: is not valid YAML: found undefined alias 'x'"),
        (b"a: 1\n---\nb: 2\n", "FILE:2: is not valid YAML: but found another document"),
        (b"a: &a [*a]\n", "FILE:1: nested too deeply, or refers to itself"),
        (b"a: " + b"[" * 5000, "FILE:1: nested too deeply, or refers to itself"),
    ],
)
def test_what_is_no_mapping_is_refused_with_its_line(file: Path, content: bytes, message: str) -> None:
    assert refused(file, content).startswith(message)


def test_a_byte_order_mark_is_no_trouble(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read(file, {}).data == {"a": "1"}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("!!python/object:os.system x", "the YAML tag !!python/object:os.system has no meaning here"),
        ("!mine x", "the YAML tag !mine has no meaning here"),
        ("{[a]: b}", "a key must be a plain word"),
        ("{<<: x}", "only mappings can be merged in"),
    ],
)
def test_yaml_that_means_nothing_to_us_is_told(file: Path, written: str, message: str) -> None:
    (problem,) = document(file, f"key: {written}").problems
    assert problem.message == message


def test_a_file_that_is_missing_or_a_directory_is_told(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(ConfigError) as caught:
            read(path, {})
        assert caught.value.message == f"{path}: can't be read: {reason}"
        assert caught.value.exit_code == 10
