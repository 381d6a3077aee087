"""The configuration of the catalogue `butler`."""

import string
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Settings:
    """What the catalogue's ``config:`` says."""

    repo: Path
    """Root of the repository."""
    create: bool = True
    """Whether the repository is made when there is none."""
    run: str = "{instrument}/raw/all"
    """Name of the RUN collection that gets the images."""
    dataset_type: str = "raw"
    bands: Mapping[str, str] = field(default_factory=dict)
    """From the name of a physical filter to that of its band."""
    busy_timeout: float = 5.0
    """Seconds to wait for a database that somebody else has locked."""

    @classmethod
    def of(cls, config: Mapping[str, object]) -> "Settings":
        """Read a mapping.

        Raises
        ------
        ValueError
            The first thing that is wrong with it, as ``key: message``.
        """
        known = [field.name for field in fields(cls)]
        for key in config:
            if key not in known:
                raise ValueError(f"{key}: unknown; known are {', '.join(known)}")
        if "repo" not in config:
            raise ValueError("repo: is missing; it is the path of the Butler repository")
        default = cls(_path("repo", config["repo"]))
        return cls(
            default.repo,
            create=_flag("create", config.get("create", default.create)),
            run=_run("run", config.get("run", default.run)),
            dataset_type=_name("dataset_type", config.get("dataset_type", default.dataset_type)),
            bands=_bands("bands", config.get("bands", default.bands)),
            busy_timeout=_seconds("busy_timeout", config.get("busy_timeout", default.busy_timeout)),
        )


def _path(key: str, value: object) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: must be a path")
    try:
        path = Path(value).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{key}: {value}: nobody knows whose home directory that is") from error
    if not path.is_absolute():
        raise ValueError(f"{key}: must be an absolute path, not {value}")
    if set(value) & set("#%?"):
        # Butler makes URIs of it without quoting, and its database would come to lie elsewhere.
        raise ValueError(f"{key}: Butler has no repository in a path with one of # % ?")
    return path


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key}: must be true or false")
    return value


def _name(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.replace("_", "a").isalnum():
        raise ValueError(f"{key}: must be a name of letters, digits and underscores")
    return value


def _run(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: must be the name of a collection")
    try:
        placeholders = {name for _, name, *_ in string.Formatter().parse(value) if name is not None}
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from error
    if placeholders - {"instrument"}:
        raise ValueError(f"{key}: {{instrument}} is the one placeholder that is known here")
    return value


def _bands(key: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{key}: must give a band for each physical filter, by its name")
    bands: dict[str, str] = {}
    for name, band in value.items():
        if not isinstance(name, str) or not isinstance(band, str) or not band:
            raise ValueError(f"{key}.{name}: must be the name of a band")
        bands[name] = band
    return bands


def _seconds(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 300:
        raise ValueError(f"{key}: must be a number of seconds, 300 at most")
    return float(value)
