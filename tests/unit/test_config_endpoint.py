"""The endpoint manager's configuration: what the catalogue may be called."""

from pathlib import Path

import pytest

from common.errors import ConfigError
from endpoint.config import EndpointConfig, effective
from endpoint.oods import load


def loaded(directory: Path, catalogue: str) -> EndpointConfig:
    """A configuration with this catalogue."""
    path = directory / "endpoint.yaml"
    path.write_text(f"endpoint: {{buffer: /b, storage: /s}}\ningester: {{catalogue: {catalogue}}}\n")
    return load(path)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("sqlite", "sqlite"),
        ("null", "null"),
        ("'null'", "null"),
        ("~", "null"),
        ("'our.module:Catalogue'", "our.module:Catalogue"),
        ("{import: our.module, name: Catalogue}", {"import": "our.module", "name": "Catalogue"}),
    ],
)
def test_a_catalogue_is_named_in_any_of_its_ways(written: str, meant: object, tmp_path: Path) -> None:
    config = loaded(tmp_path, written)
    assert config.catalogue == meant
    shown = tmp_path / "shown.yaml"
    shown.write_text(effective(config))
    assert load(shown).catalogue == meant


def test_the_embedded_catalogues_path_begins_at_the_configuration(tmp_path: Path) -> None:
    """As all paths do: cron and a person start a manager in different directories."""
    config = loaded(tmp_path, "sqlite, config: {path: catalogue.db}")
    assert config.catalogue_config == {"path": f"{tmp_path}/catalogue.db"}
    assert loaded(tmp_path, "ours, config: {path: its.own}").catalogue_config == {"path": "its.own"}


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("null, config: {colour: red}", "config.colour: the null catalogue has nothing to configure"),
        ("sqlite, config: {cards: 5}", "config.cards: must be true or false"),
        ("sqlite, config: {pth: a.db}", "config.pth: unknown key; did you mean path?"),
        ("sqlite, config: {path: [a.db]}", "config.path: must be the path of the catalogue's database"),
        ("command", "config.run: must be a command, such as 'ingest --into /repo {files}'"),
        ("butler, config: {repo: a}", "config.repo: must be an absolute path, not a"),
        ("butler, config: {repo: /r, bands: {g: 5}}", "config.bands.g: must be the name of a band"),
    ],
)
def test_what_a_catalogue_that_comes_along_does_not_want_is_told_at_its_line(
    written: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, written)
    assert error.value.message == f"{tmp_path / 'endpoint.yaml'}:2: ingester.{told}"


@pytest.mark.parametrize("written", ["[sqlite]", "{import: our.module}", "{import: a, name: B, too: much}"])
def test_what_names_no_catalogue_is_told_in_one_line(written: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(tmp_path, written)
    told = "2: ingester.catalogue: must be the name of a catalogue, or {import: module, name: Class}"
    assert error.value.message == f"{tmp_path / 'endpoint.yaml'}:{told}"
