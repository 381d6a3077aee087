"""A catalogue is found by its name or its place, and what is wrong is told with a hint."""

import re
from collections.abc import Mapping

import pytest

from endpoint.catalogues.contract import CatalogueError
from endpoint.catalogues.loading import BUILT_IN, Source, find, make
from endpoint.catalogues.null import NullCatalogue


@pytest.mark.parametrize(
    "source",
    [
        "null",
        "endpoint.catalogues.null:NullCatalogue",
        {"import": "endpoint.catalogues.null", "name": "NullCatalogue"},
    ],
)
def test_there_are_several_ways_to_name_the_same_class(source: Source) -> None:
    assert find(source) is NullCatalogue


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_catalogue_that_comes_along_is_found(name: str) -> None:
    assert callable(find(name))


NOT_INSTALLED = "install it into the manager's Python, or name its directory in PYTHONPATH"


@pytest.mark.parametrize(
    ("source", "message", "hint"),
    [
        ("sqlit", "there is no catalogue 'sqlit'", "did you mean sqlite? there are butler, command, null"),
        ("no.such.module:Class", "there is no module no", NOT_INSTALLED),
        ({"import": "endpoint.nowhere", "name": "C"}, "there is no module endpoint.nowhere", NOT_INSTALLED),
        (
            "endpoint.catalogues.null:NulCatalogue",
            "endpoint.catalogues.null has no NulCatalogue",
            "did you mean NullCatalogue?",
        ),
        ("endpoint.catalogues.loading:GROUP", "loading:GROUP is no class", "name the class"),
        ({"import": "x"}, "must have exactly the keys import and name", "write for example"),
        ({"import": "x", "name": "y", "z": "a"}, "must have exactly the keys import and name", "for example"),
    ],
)  # fmt: skip
def test_a_class_that_is_not_there_is_told(source: Source, message: str, hint: str) -> None:
    with pytest.raises(CatalogueError, match=re.escape(message)) as raised:
        find(source)
    assert hint in raised.value.hint


@pytest.mark.parametrize(
    ("source", "config", "message"),
    [
        ("null", {"colour": "red"}, "ingester.config.colour: the null catalogue has nothing to configure"),
        ("sqlite", {}, "ingester.config.path: must be the path of the catalogue's database"),
        ("command", {"run": 5}, "ingester.config.run: must be a command"),
    ],
)
def test_a_configuration_that_it_does_not_want_is_told(
    source: Source, config: Mapping[str, object], message: str
) -> None:
    with pytest.raises(CatalogueError, match=f"^{re.escape(message)}"):
        make(source, config)
