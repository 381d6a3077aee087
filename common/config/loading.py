"""From a document to a model: every problem at once, with the key that was probably meant."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from common.config.document import Document, Key, Problem, described, dotted, failed, read
from common.config.origin import Origin

Model = TypeVar("Model", bound=BaseModel)
Check = Callable[[Document, Origin], Iterable[tuple[Key, str]]]
"""What no single key can tell: it looks at the raw document, so that it works beside other problems."""

_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "tuple": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
_LIMITS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


def load(
    model: type[Model], path: Path, *, check: Check, environment: Mapping[str, str] | None = None
) -> Model:
    """Read a configuration file as this model.

    Raises
    ------
    ConfigError
        Its message has one line for each problem: ``file:line: key: message``.
    """
    environment = os.environ if environment is None else environment
    origin = Origin(path, environment)
    document = read(path, environment)
    # What stands at a key whose text could not be read says nothing more.
    unread = {problem.key for problem in document.problems}
    found = [document.problem(key, message) for key, message in check(document, origin)]
    loaded = None
    try:
        loaded = model.model_validate(document.data, context=origin)
    except ValidationError as error:
        found += [_problem(model, document, details) for details in error.errors(include_url=False)]
    problems = [*document.problems, *(problem for problem in found if problem.key not in unread)]
    if problems or loaded is None:
        raise failed(path, problems)
    return loaded


def rendered(model: BaseModel) -> str:
    """The model as a YAML file that would load as the same model."""
    plain = _escaped(model.model_dump(by_alias=True))
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100))


def fields(model: type[BaseModel], above: Key = ()) -> Iterator[tuple[Key, FieldInfo]]:
    """Every key of a configuration with its field, sections included, in the order of the model."""
    for name, info in model.model_fields.items():
        key = (*above, info.alias or name)
        yield key, info
        section = section_of(info)
        if section is not None:
            yield from fields(section, key)


def section_of(info: FieldInfo) -> type[BaseModel] | None:
    """The model below a field, if there is one."""
    for kind in (info.annotation, *get_args(info.annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def unknown(model: type[BaseModel], key: Key) -> str:
    """What to say of a key that the model does not know."""
    known = [known for known, _ in fields(model)]
    name = str(key[-1])
    siblings = [str(other[-1]) for other in known if other[:-1] == key[:-1]]
    if near := difflib.get_close_matches(name.lower(), siblings, n=1):
        return f"unknown key; did you mean {near[0]!r}?"
    if elsewhere := next((dotted(other) for other in known if other[-1] == name), None):
        return f"unknown key; did you mean {elsewhere!r}?"
    return "unknown key" + (f"; there are {', '.join(siblings)}" if siblings else "")


def _problem(model: type[BaseModel], document: Document, error: ErrorDetails) -> Problem:
    key: Key = tuple(part for part in error["loc"] if part != "[key]")
    if error["type"] == "extra_forbidden":
        return document.problem(key, unknown(model, key))
    # A validator may have seen the value half converted; the message shows what the file says.
    return document.problem(key, _message(error, document.value(key, error["input"])))


def _message(error: ErrorDetails, value: object) -> str:
    """What is wrong with a value, in the words of somebody who knows YAML and not Python."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(context["error"])
    if kind in _LIMITS:
        words, limit = _LIMITS[kind]
        return f"must be {words} {context[limit]:g}, not {described(value)}"
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        near = difflib.get_close_matches(str(value).lower(), [choice.lower() for choice in choices], n=1)
        hint = next((f"; did you mean {choice}?" for choice in choices if [choice.lower()] == near), "")
        return f"must be one of {', '.join(choices)}, not {described(value)}{hint}"
    wanted = _WANTED.get(kind.split("_")[0])
    if wanted:
        return f"must be {wanted}, not {described(value)}"
    return error["msg"][:1].lower() + error["msg"][1:]


def _escaped(value: object) -> object:
    """Text in which nothing looks like a variable."""
    match value:
        case str():
            return value.replace("${", "$${")
        case dict():
            return {name: _escaped(item) for name, item in value.items()}
        case list() | tuple():
            return [_escaped(item) for item in value]
    return value
