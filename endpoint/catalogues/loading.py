"""Finding the class of a catalogue: one that comes along, or a third party's."""

import importlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from endpoint.catalogues.contract import Catalogue, CatalogueClass, CatalogueError

GROUP = "dbb.catalogues"
"""Of entry points: a distribution names its catalogues there."""

# By their names; each is imported only when it is the one.
BUILT_IN: Mapping[str, str] = {
    "butler": "endpoint.catalogues.butler.catalogue:ButlerCatalogue",
    "command": "endpoint.catalogues.command:CommandCatalogue",
    "null": "endpoint.catalogues.null:NullCatalogue",
    "sqlite": "endpoint.catalogues.sqlite:SqliteCatalogue",
}

Source = str | Mapping[str, str]
"""A built-in's name, an entry point's, ``package.module:Class``, or ``{import: module, name: Class}``."""

_PLACE = re.compile(r"[\w.]+:[\w.]+")


def make(source: Source, config: Mapping[str, object]) -> Catalogue:
    """Make a catalogue from its configuration; it is not opened yet.

    Raises
    ------
    CatalogueError
        There is no such class, or it does not want this configuration.
    """
    maker = find(source)
    try:
        return maker(config)
    except ValueError as error:
        raise CatalogueError(
            f"ingester.config.{error}", f"correct what ingester.config says to {_named(source)}"
        ) from error


def find(source: Source) -> CatalogueClass:
    """The class of a catalogue, imported.

    Raises
    ------
    CatalogueError
        There is none of that name, or its module can't be imported.
    """
    if not isinstance(source, str):
        return _attribute(*_pair(source))
    if source in BUILT_IN:
        return _attribute(*BUILT_IN[source].split(":"))
    if _PLACE.fullmatch(source):
        return _attribute(*source.split(":"))
    return _from_entry_point(source)


def _pair(source: Mapping[str, str]) -> tuple[str, str]:
    if set(source) != {"import", "name"} or not all(isinstance(value, str) for value in source.values()):
        raise CatalogueError(
            "ingester.catalogue must have exactly the keys import and name",
            "write for example {import: package.module, name: Class}",
        )
    return source["import"], source["name"]


def _from_entry_point(name: str) -> CatalogueClass:
    points = entry_points(group=GROUP)
    found: list[EntryPoint] = [point for point in points if point.name == name]
    if not found:
        known = sorted({*BUILT_IN, *(point.name for point in points)})
        raise CatalogueError(
            f"there is no catalogue {name!r}",
            f"{_nearest(name, known)}there are {', '.join(known)}; others are named as module:Class",
        )
    return _attribute(found[0].module, found[0].attr)


def _attribute(module_name: str, name: str) -> CatalogueClass:
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise _not_imported(module_name, error) from error
    except Exception as error:
        raise CatalogueError(
            f"importing {module_name} failed with {type(error).__name__}: {error}",
            "import it in the manager's Python to see where; it is the catalogue's own fault",
        ) from error
    found: object = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [known for known in dir(found) if not known.startswith("_")]
            raise CatalogueError(
                f"{module_name} has no {name}", _nearest(name, names) or "see what the module offers"
            )
        found = getattr(found, part)
    if not callable(found):
        raise CatalogueError(f"{module_name}:{name} is no class", "name the class of the catalogue")
    return cast("CatalogueClass", found)


def _not_imported(name: str, error: ImportError) -> CatalogueError:
    missing = getattr(error, "name", None) or ""
    if missing and (name == missing or name.startswith(f"{missing}.")):
        return CatalogueError(
            f"there is no module {missing}",
            "install it into the manager's Python, or name its directory in PYTHONPATH",
        )
    return CatalogueError(
        f"{name} can't be imported: {error}", "install what it needs into the manager's Python"
    )


def _nearest(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]}? " if near else ""


def _named(source: Source) -> str:
    return source if isinstance(source, str) else f"{source.get('import')}:{source.get('name')}"
