"""A YAML file as a tree of text with line numbers; what a text means, the key above it decides.

No scalar is given a type here, so that none of YAML 1.1's traps can spring (``1:30`` as 90, ``on``
and ``no`` as booleans, ``022`` as 18): the model that wants a number reads a number.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from common.errors import ConfigError

Value = None | str | list["Value"] | dict[str, "Value"]
Key = tuple[str | int, ...]
"""The way to a value: the names of mappings' keys and the positions in lists."""

_NULL = ("", "~", "null", "Null", "NULL")
_TAG = "tag:yaml.org,2002:"
_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")}
_MERGE = "<<"
_SUBSTITUTION = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something to mend, at a line of the file (1 is the first)."""

    line: int
    key: str
    message: str


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says, and where it says it."""

    data: dict[str, Value]
    lines: Mapping[Key, int]
    problems: tuple[Problem, ...] = ()
    """What is wrong with the text itself: duplicate keys, undefined variables."""

    def value(self, key: Key, default: object = None) -> object:
        """What stands at a key; the default where nothing does."""
        value: object = self.data
        for part in key:
            match value, part:
                case dict(), str() if part in value:
                    value = value[part]
                case list(), int() if part < len(value):
                    value = value[part]
                case _:
                    return default
        return value

    def problem(self, key: Key, message: str) -> Problem:
        """A problem at the line of this key, or of what surrounds it where there is no such key."""
        known = (self.lines[key[:length]] for length in range(len(key), -1, -1) if key[:length] in self.lines)
        return Problem(next(known, 1), dotted(key), message)


def dotted(key: Key) -> str:
    """``('general', 'exclude_list', 0)`` as ``general.exclude_list[0]``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key).removeprefix(".")


def failed(path: Path, problems: Iterable[Problem]) -> ConfigError:
    """The error that tells all problems, in the order of their lines."""
    lines = [
        f"{path}:{problem.line}: " + (f"{problem.key}: " if problem.key else "") + problem.message
        for problem in sorted(set(problems))
    ]
    return ConfigError(
        "\n".join(lines), "Mend what is listed; `validate` checks the file without starting anything."
    )


def read(path: Path, environment: Mapping[str, str]) -> Document:
    """Read a file and fill in ``${NAME}`` and ``${NAME:-default}``.

    Raises
    ------
    ConfigError
        It can't be read, or it is no YAML mapping.
    """
    text = _text(path)
    try:
        root = _Loader(text).get_single_node()
        builder = _Builder(environment)
        if root is None:
            raise failed(path, [Problem(1, "", "the file is empty")])
        data = builder.build(root, ())
    except yaml.MarkedYAMLError as error:
        raise failed(path, [_syntax(error)]) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        message = f"the character U+{ord(text[error.position]):04X} can't stand in a YAML file"
        raise failed(path, [Problem(line, "", message)]) from error
    except RecursionError as error:
        raise failed(path, [Problem(1, "", "nested too deeply, or refers to itself")]) from error
    if not isinstance(data, dict):
        raise failed(path, [Problem(1, "", f"must be a mapping of sections, not {described(data)}")])
    return Document(data, builder.lines, tuple(builder.problems))


def described(value: object) -> str:
    """A value as a message names it."""
    match value:
        case None:
            return "nothing"
        case list() | tuple():
            return "a list"
        case dict():
            return "a mapping"
    return repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "...'"


def substituted(text: str, environment: Mapping[str, str]) -> tuple[str, list[str]]:
    """Fill in the variables of a text; with it what is wrong with it."""
    wrong: list[str] = []

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return "${"
        variable = _VARIABLE.fullmatch(found[1])
        if not found[2] or variable is None or "${" in found[1]:
            wrong.append(f"{found[0]!r}: write ${{NAME}} or ${{NAME:-default}}, or $${{ for a plain ${{")
            return ""
        name, default = variable.groups()
        filled = environment.get(name)
        if default is not None:
            return filled or default
        if filled is None:
            wrong.append(f"the environment variable {name} is not set; ${{{name}:-…}} gives a default")
        return filled or ""

    return _SUBSTITUTION.sub(value, text), wrong


class _Loader(yaml.SafeLoader):
    """Resolves no scalar by its looks."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - as its class has it


@dataclass(slots=True)
class _Builder:
    """Turns nodes into values and remembers the lines of their keys."""

    environment: Mapping[str, str]
    lines: dict[Key, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def build(self, node: yaml.Node, key: Key) -> Value:
        self.lines.setdefault(key, _line(node))
        if node.tag not in _TAGS:
            tag = node.tag.replace(_TAG, "!!")
            self._complain(node, key, f"the YAML tag {tag} has no meaning here")
            return None
        match node:
            case yaml.MappingNode():
                return self._mapping(node, key)
            case yaml.SequenceNode():
                return [self.build(item, (*key, position)) for position, item in enumerate(node.value)]
            case yaml.ScalarNode():
                return self._scalar(node, key)
        raise AssertionError(node)

    def _scalar(self, node: yaml.ScalarNode, key: Key) -> str | None:
        text, wrong = substituted(node.value, self.environment)
        for message in wrong:
            self._complain(node, key, message)
        is_plain = node.style is None and node.tag == _TAG + "str"
        is_null = is_plain and text in _NULL and not wrong
        return None if is_null or node.tag == _TAG + "null" else text

    def _mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Value]:
        values: dict[str, Value] = {}
        own: dict[str, int] = {}
        # What is merged in comes first, because a mapping's own keys prevail.
        for merged in self._merged(node, key):
            values |= self._mapping(merged, key)
        for name_node, value_node in node.value:
            name = name_node.value
            if not isinstance(name_node, yaml.ScalarNode):
                self._complain(name_node, key, "a key must be a plain word")
            elif _is_merge(name_node):
                continue
            elif name in own:
                message = f"is given twice, first in line {own[name]}"
                self._complain(name_node, (*key, name), message)
            else:
                own[name] = self.lines[*key, name] = _line(name_node)
                values[name] = self.build(value_node, (*key, name))
        return values

    def _merged(self, node: yaml.MappingNode, key: Key) -> Iterator[yaml.MappingNode]:
        """The mappings merged into this one, the one that prevails last."""
        for name_node, value_node in reversed(node.value):
            if not _is_merge(name_node):
                continue
            sources = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for source in reversed(sources):
                if isinstance(source, yaml.MappingNode):
                    yield source
                else:
                    self._complain(name_node, (*key, _MERGE), "only mappings can be merged in")

    def _complain(self, node: yaml.Node, key: Key, message: str) -> None:
        self.problems.append(Problem(_line(node), dotted(key), message))


def _is_merge(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == _MERGE and node.style is None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"{path}: can't be read: {error.strerror}",
            "name a configuration file that this user may read; docs/configuration.md has examples",
        ) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8 (byte 0x{content[error.start]:02x})"
        raise failed(path, [Problem(line, "", message)]) from error


def _syntax(error: yaml.MarkedYAMLError) -> Problem:
    mark = error.problem_mark or error.context_mark
    message = ", ".join(part for part in (error.problem, error.context) if part)
    if "'\\t'" in message:
        message += " (indent with spaces, not with tabs)"
    return Problem(mark.line + 1 if mark else 1, "", f"is not valid YAML: {message}")
