"""The reference says what the code does."""

import ast
import json
import re
from pathlib import Path

import pytest
from pydantic import BaseModel

import common.config.sections
import handoff.config
from common.config.document import Key, dotted
from common.config.loading import fields, section_of
from handoff.config import HandoffConfig, load

REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "handoff" / "etc" / "config.yaml"
REFERENCE = REPOSITORY / "docs" / "configuration.md"
SPECIAL_DEFAULTS = {
    "endpoint.staging": "`<buffer>.staging`",
    "database.engine": "`$XDG_STATE_HOME/dbb/<name>.db`",
    "database.echo": "",
    "database.pool_type": "",
    "database.pool_class": "",
}


def test_the_reference_has_a_row_for_every_key_with_its_default_and_meaning() -> None:
    rows = re.findall(r"^\| `[a-z_.]+` \|.*", REFERENCE.read_text(), re.MULTILINE)
    assert rows == expected_rows()


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", REFERENCE.read_text(), re.M | re.S))
def test_the_configurations_in_the_reference_are_valid(block: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    site = "" if "handoff:" in block else "handoff: {buffer: /data/buffer, holding: /data/holding}\n"
    path.write_text(site + block)
    assert load(path, {}).endpoint.host == "archive.example.edu"


def expected_rows() -> list[str]:
    """One row for a key, in the order of the models, as ``| `key` | default | meaning |``."""
    meanings = {**docstrings(common.config.sections.__file__), **docstrings(handoff.config.__file__)}
    rows = []
    for key, info in fields(HandoffConfig):
        if section_of(info) is None:
            model = _model_of(key)
            name = next(
                name for name, other in model.model_fields.items() if (other.alias or name) == key[-1]
            )
            meaning = next(
                meanings[base.__name__, name] for base in model.__mro__ if (base.__name__, name) in meanings
            )
            rows.append(f"| `{dotted(key)}` | {_default(key)} | {meaning} |")
    return rows


def docstrings(path: str | None) -> dict[tuple[str, str], str]:
    """What stands below each attribute of each class of a module."""
    assert path
    found = {}
    for node in ast.parse(Path(path).read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement, below in zip(node.body, node.body[1:], strict=False):
            match statement, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[node.name, name] = " ".join(text.split())
    return found


def _model_of(key: Key) -> type[BaseModel]:
    """The model that the key belongs to."""
    if len(key) == 1:
        return HandoffConfig
    info = next(info for other, info in fields(HandoffConfig) if other == key[:-1])
    model = section_of(info)
    assert model is not None
    return model


def _default(key: Key) -> str:
    name = dotted(key)
    if name in SPECIAL_DEFAULTS:
        return SPECIAL_DEFAULTS[name]
    info = next(info for other, info in fields(HandoffConfig) if other == key)
    if info.is_required():
        return "required"
    config = load(EXAMPLE, {})
    value: object = config.model_dump(by_alias=True)
    for part in key:
        value = value.get(part) if isinstance(value, dict) else None
    if value is None or isinstance(value, bool):
        value = json.dumps(value)
    elif isinstance(value, list):
        value = "[" + ", ".join(f"'{item}'" for item in value) + "]"  # as YAML has it, unescaped
    return f"`{value}`"
