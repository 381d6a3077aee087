"""The example configurations show every key of the models, with the default that it has there."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from pydantic import BaseModel

from common.config.document import Document, dotted, read
from common.config.loading import fields
from common.config.loading import load as load_model
from endpoint.config import EndpointConfig
from endpoint.config import load as load_endpoint
from endpoint.oods import OodsConfig, is_oods
from endpoint.oods import load as load_oods
from handoff.config import HandoffConfig
from handoff.config import load as load_handoff

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {"XDG_STATE_HOME": "/var/lib"}
"""As in a container, where the ledger's default place is /var/lib/dbb."""
_IGNORED = frozenset({"database.echo", "database.pool_type", "database.pool_class"})
"""Keys of the original manager, of no effect; nobody should write them anew."""


@dataclass(frozen=True, slots=True)
class Example:
    """A file, and what reads it."""

    name: str
    model: type[BaseModel]
    load: Callable[[Path, Mapping[str, str]], BaseModel]
    in_words: frozenset[str] = frozenset()
    """Keys that only a comment names, since others exclude them."""

    @property
    def path(self) -> Path:
        return REPOSITORY / self.name

    @property
    def text(self) -> str:
        return self.path.read_text()

    def document(self, directory: Path) -> Document:
        return read(self.complete(directory), ENVIRONMENT)

    def complete(self, directory: Path) -> Path:
        """A copy in which every key that was commented out is one."""
        path = directory / self.path.name
        path.write_text(uncommented(self.text))
        return path

    def raw(self, path: Path) -> Mapping[str, object]:
        """What the model itself makes of a file, by the keys' names."""
        return load_model(self.model, path, check=lambda *_: (), environment=ENVIRONMENT).model_dump(
            by_alias=True
        )


HANDOFF = partial(Example, model=HandoffConfig, load=load_handoff)
CONFIG = HANDOFF("handoff/etc/config.yaml")
AUXTEL = HANDOFF("handoff/etc/at_dbbbm_config.yaml")
COMCAM = HANDOFF("handoff/etc/cc_dbbbm_config.yaml")
ENDPOINT = Example(
    "endpoint/etc/endpoint.yaml",
    EndpointConfig,
    load_endpoint,
    frozenset({"ingester.catalogue.import", "ingester.catalogue.name"}),
)
OODS = Example(
    "endpoint/etc/oods.yaml",
    OodsConfig,
    load_oods,
    frozenset(
        {
            *("ingester.catalogue", "ingester.config", "ingester.butler.class.repoDirectory"),
            *("ingester.butler.batchSize", "ingester.butler.scanInterval"),
        }
    ),
)
EXAMPLES = [CONFIG, AUXTEL, COMCAM, ENDPOINT, OODS]


def uncommented(text: str) -> str:
    """With every key that was commented out; prose has a space after its ``#``."""
    return re.sub(r"^( *)#(?=[a-zA-Z_]+:)", r"\1", text, flags=re.MULTILINE)


@pytest.fixture(params=EXAMPLES, ids=lambda example: example.name)
def example(request: pytest.FixtureRequest) -> Example:
    found = request.param
    assert isinstance(found, Example)
    return found


def test_an_example_is_valid_as_it_is(example: Example) -> None:
    config = example.load(example.path, ENVIRONMENT)
    assert isinstance(config, HandoffConfig | EndpointConfig)
    assert config.notes() == ()


def test_an_example_is_valid_with_everything_uncommented(example: Example, tmp_path: Path) -> None:
    example.load(example.complete(tmp_path), ENVIRONMENT)


def test_an_example_shows_every_key(example: Example, tmp_path: Path) -> None:
    known = {dotted(key) for key, _ in fields(example.model)} - _IGNORED
    shown = {dotted(key) for key in example.document(tmp_path).lines}
    assert {key for key in known - shown if not in_words(key, example)} == set()


def test_a_key_that_only_words_name_is_named(example: Example) -> None:
    words = set(re.findall(r"\w+(?=`|:)", "\n".join(re.findall(r"# .*", example.text))))
    assert {key.rpartition(".")[2] for key in example.in_words} <= words


def test_what_is_commented_out_is_the_default_or_an_example_where_there_is_none(
    example: Example, tmp_path: Path
) -> None:
    given = {dotted(key) for key in read(example.path, ENVIRONMENT).lines}
    default, shown = example.raw(example.path), example.raw(example.complete(tmp_path))
    for key, _ in fields(example.model):
        name, value = dotted(key), value_at(default, key)
        is_section = isinstance(value, Mapping)  # whose keys are looked at each
        if value is not None and not is_section and name not in given and not in_words(name, example):
            assert (name, value_at(shown, key)) == (name, value)


def test_only_the_one_of_the_oods_is_taken_for_a_configuration_of_the_oods(example: Example) -> None:
    assert is_oods(read(example.path, ENVIRONMENT)) == (example is OODS)


@pytest.mark.parametrize("instrument", [AUXTEL, COMCAM], ids=lambda example: example.name)
def test_an_instrument_has_the_keys_and_comments_of_the_general_example(instrument: Example) -> None:
    assert without_values(instrument) == without_values(CONFIG)


def test_what_two_instruments_share_is_neither_a_ledger_nor_a_place_at_the_endpoint() -> None:
    [one, other] = [load_handoff(example.path, ENVIRONMENT) for example in (AUXTEL, COMCAM)]
    assert one.ledger_path != other.ledger_path
    assert {one.endpoint.buffer, one.endpoint.staging}.isdisjoint(
        {other.endpoint.buffer, other.endpoint.staging}
    )


def test_the_examples_of_the_two_managers_mean_the_same_directories_at_the_endpoint() -> None:
    sender, receiver = load_handoff(CONFIG.path, ENVIRONMENT), load_endpoint(ENDPOINT.path, ENVIRONMENT)
    assert (Path(sender.endpoint.buffer), Path(sender.endpoint.staging or "")) == (
        receiver.endpoint.buffer,
        receiver.endpoint.staging,
    )


def test_the_ledger_logging_and_general_of_the_oods_are_those_of_the_endpoint_manager() -> None:
    def shared(example: Example) -> str:
        return example.text[example.text.index("# The ledger.") :].replace("oods.db", "endpoint.db")

    assert shared(OODS) == shared(ENDPOINT)


def in_words(key: str, example: Example) -> bool:
    """Whether the key, or the section that it is in, can't stand beside what the example has."""
    return any(key == named or key.startswith(f"{named}.") for named in example.in_words)


def value_at(values: object, key: tuple[str | int, ...]) -> object:
    for part in key:
        values = values.get(part) if isinstance(values, Mapping) else None
    return values


def without_values(example: Example) -> list[str]:
    """From the first section on, each line with its comment or its key, and no value."""
    body = example.text[example.text.index("# This site.") :]
    return [
        line if line.lstrip().startswith("# ") else re.sub(r"^( *)#?(\w+:).*", r"\1\2", line)
        for line in body.splitlines()
    ]
