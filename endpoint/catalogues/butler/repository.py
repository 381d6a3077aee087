"""A Butler repository: made or checked, and raw images added to it, a batch in a transaction.

Files stay where they are; the repository gets their URIs (``transfer="direct"``). Moving them would
leave orphans behind when the process is killed between the move and the commit.
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from lsst.daf.butler import (
    Butler,
    ButlerConfig,
    Config,
    DataCoordinate,
    DatasetIdGenEnum,
    DatasetRef,
    DatasetType,
    FileDataset,
    MissingDatasetTypeError,
)
from lsst.daf.butler.registry import ConflictingDefinitionError
from lsst.resources import ResourcePath

from endpoint.catalogues.butler.formatter import FitsRawFormatter
from endpoint.catalogues.butler.observation import Observation
from endpoint.catalogues.butler.records import Records
from endpoint.catalogues.butler.settings import Settings
from endpoint.catalogues.contract import CatalogueError, Result, Verdict

SEED = Path(__file__).with_name("seed.yaml")


@dataclass(frozen=True, slots=True)
class RawFile:
    """A file to add."""

    id: int
    """Of the request."""
    uri: ResourcePath
    observations: tuple[Observation, ...]


class Repository:
    """An open repository; one process has one, and only its main thread uses it.

    Raises
    ------
    CatalogueError
        Of the call and of `add`: it can't be used now.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop_waiting = _wait_no_longer(settings.busy_timeout)
        try:
            self._butler, self._type = _opened(settings)
        except BaseException:
            self._stop_waiting()
            raise
        self._records = Records(self._butler.registry, self._butler.dimensions, settings.bands)
        self._runs: set[str] = set()

    def close(self) -> None:
        """Close the database."""
        self._butler.close()
        self._stop_waiting()

    def add(self, files: Sequence[RawFile]) -> Iterator[Result]:
        """Add files that hold different datasets; tells of each once that is committed.

        One of them can spoil it for the others: then each half is added by itself, and so on.
        """
        results: list[Result] | None
        try:
            with _troubles(self._settings.repo):
                results = self._commit(files)
        except CatalogueError:
            raise
        except Exception as error:  # noqa: BLE001  daf_butler's errors have no class in common
            results = [_failure(files[0], error)] if len(files) == 1 else None
        if results is not None:
            yield from results
            return
        middle = len(files) // 2
        yield from self.add(files[:middle])
        yield from self.add(files[middle:])

    def datasets(self, file: RawFile) -> list[DatasetRef]:
        """What a file's observations are as datasets; the same observation is always the same one."""
        return [self._dataset(observation) for observation in file.observations]

    def _dataset(self, observation: Observation) -> DatasetRef:
        info = observation.detector
        place = DataCoordinate.standardize(
            instrument=info.instrument,
            exposure=info.exposure_id,
            detector=info.detector_num,
            universe=self._butler.dimensions,
        )
        run = self._settings.run.format(instrument=info.instrument)
        return DatasetRef(self._type, place, run, id_generation_mode=DatasetIdGenEnum.DATAID_TYPE_RUN)

    def _commit(self, files: Sequence[RawFile]) -> list[Result]:
        """One transaction, from the question what is there to the answer: nobody writes in between."""
        refs = {file.id: self.datasets(file) for file in files}
        self._register_runs({ref.run for of_file in refs.values() for ref in of_file})
        results: list[Result] = []
        with self._butler.transaction():
            places = self._places([ref for of_file in refs.values() for ref in of_file])
            new: list[FileDataset] = []
            observations: list[Observation] = []
            for file in files:
                result, missing = _compared(file, refs[file.id], places)
                results.append(result)
                if missing:
                    new.append(FileDataset(file.uri, missing, formatter=FitsRawFormatter))
                    observations += file.observations
            written = self._records.write(observations)
            self._butler.ingest(*new, transfer="direct")
        self._records.remember(written)
        return results

    def _places(self, refs: list[DatasetRef]) -> dict[DatasetRef, ResourcePath]:
        """Where those of the datasets are that the repository has."""
        found = self._butler.get_many_uris(refs, allow_missing=True)
        return {ref: uris.primaryURI for ref, uris in found.items() if uris.primaryURI is not None}

    def _register_runs(self, runs: set[str]) -> None:
        """Which can't be done within a transaction."""
        for run in runs - self._runs:
            collections = self._butler.collections
            # It says nothing when there is one of that name and another type.
            if not collections.register(run) and collections.get_info(run).type.name != "RUN":
                raise CatalogueError(
                    f"{self._settings.repo}: the collection {run} is not of type RUN",
                    "give another name as `run` in the catalogue's configuration",
                )
            self._runs.add(run)


def _compared(
    file: RawFile, refs: list[DatasetRef], places: dict[DatasetRef, ResourcePath]
) -> tuple[Result, list[DatasetRef]]:
    """What becomes of a file, and which of its datasets the repository lacks."""
    for ref in refs:
        place = places.get(ref)
        if place is not None and place != file.uri:
            reason = f"{_named(ref)} is {place.ospath} there, and not {file.uri.ospath}"
            return Result(file.id, Verdict.CONFLICT, reason), []
    missing = [ref for ref in refs if ref not in places]
    return Result(file.id, Verdict.INGESTED if missing else Verdict.ALREADY), missing


def _named(ref: DatasetRef) -> str:
    values = " ".join(f"{name}={value}" for name, value in ref.dataId.required.items())
    return f"{ref.datasetType.name} {values}"


def _failure(file: RawFile, error: Exception) -> Result:
    """What an error says of the one file that was being added."""
    told = _sentence(error)
    if isinstance(error, ConflictingDefinitionError):
        return Result(file.id, Verdict.CONFLICT, told)
    if isinstance(error, sqlalchemy.exc.IntegrityError) and "CHECK constraint" in told:
        return Result(file.id, Verdict.INVALID, f"a value does not fit into the repository: {error.orig}")
    return Result(file.id, Verdict.FAILED, f"{type(error).__name__}: {told}")


def _sentence(error: Exception) -> str:
    """Its text in one line."""
    return " ".join(str(error).split())


def _opened(settings: Settings) -> tuple[Butler, DatasetType]:
    """The repository, and the dataset type of what is put into it."""
    try:
        with _troubles(settings.repo), ExitStack() as stack:
            _make(settings)
            config = ButlerConfig(_directory(settings.repo))
            _check_storage_class(config, settings.repo)
            butler = Butler.from_config(config, writeable=True)
            stack.callback(butler.close)
            wanted = _registered_type(butler, settings)
            stack.pop_all()
            return butler, wanted
    except CatalogueError:
        raise
    except OSError as error:
        raise CatalogueError(
            f"{settings.repo} can't be opened or made: {error.strerror or error}",
            "correct `repo`, or let the manager's user write there",
        ) from error
    except Exception as error:  # a directory, a configuration or a version: daf_butler raises what it likes
        raise CatalogueError(
            f"{settings.repo} can't be opened: {_sentence(error)}",
            "look at the repository with `butler query-collections`",
        ) from error


def _make(settings: Settings) -> None:
    """Make the repository if there is none, in one step: half of one would stand in the way for ever."""
    root = settings.repo
    if (root / "butler.yaml").exists():
        return
    if not settings.create:
        raise CatalogueError(f"{root} is no Butler repository", "correct `repo`, or set `create: true`")
    if not root.parent.is_dir():
        # Made by us, it would hide a name that is mistyped, or a disk that is not mounted.
        raise CatalogueError(
            f"{root.parent}, which the repository is to lie in, is no directory",
            "make it, mount its disk, or correct `repo`",
        )
    # A directory with a dot in its name is taken for a file when a repository is made, but not later.
    making = root.with_name(f"{root.name.replace('.', '_')}-being-made")
    shutil.rmtree(making, ignore_errors=True)  # of one that was killed
    Butler.makeRepo(_directory(making), config=Config(str(SEED)))
    making.rename(root)


def _directory(path: Path) -> ResourcePath:
    """Told to be one: a bare path's `#` and `%` would be taken for a URI's."""
    return ResourcePath(path.as_uri(), forceDirectory=True)


def _check_storage_class(config: ButlerConfig, root: Path) -> None:
    """By its configuration: what one process has learned from another repository, others would lack here."""
    if ("storageClasses", "FitsRaw") not in config:
        raise CatalogueError(
            f"{root}: its butler.yaml does not know the storage class FitsRaw",
            f"put into it what {SEED} says",
        )


def _registered_type(butler: Butler, settings: Settings) -> DatasetType:
    """The dataset type of the images, registered if it was not."""
    if "group" not in butler.dimensions["exposure"].implied:
        raise CatalogueError(
            f"{settings.repo}: its dimensions are of version {butler.dimensions.version}, "
            "in which an exposure's group and day are no dimensions",
            "migrate it to version 6 or newer, or ingest with `catalogue: command`",
        )
    dimensions = {"instrument", "detector", "exposure"}
    wanted = DatasetType(settings.dataset_type, dimensions, "FitsRaw", universe=butler.dimensions)
    try:
        found = butler.get_dataset_type(wanted.name)
    except MissingDatasetTypeError:
        found = None
    if found is not None and found != wanted:
        raise CatalogueError(
            f"{settings.repo}: its dataset type {wanted.name} is defined otherwise: {found}",
            "give another `dataset_type` in the catalogue's configuration, "
            "or ingest with `catalogue: command` and `butler ingest-raws`",
        )
    if found is None:
        butler.registry.registerDatasetType(wanted)
    return wanted


def _wait_no_longer(seconds: float) -> Callable[[], None]:
    """Give up a locked SQLite database after so long, and not after Butler's five minutes.

    Butler has no setting for it. SQLAlchemy tells of every transaction before Butler's own listener
    begins it. Returns what ends it.
    """
    engine = sqlalchemy.engine.Engine

    def before_it_begins(connection: sqlalchemy.engine.Connection) -> None:
        if connection.dialect.name == "sqlite":
            cursor = connection.connection.cursor()
            cursor.execute(f"PRAGMA busy_timeout = {round(seconds * 1000)}")
            cursor.close()

    sqlalchemy.event.listen(engine, "begin", before_it_begins)
    return lambda: sqlalchemy.event.remove(engine, "begin", before_it_begins)


@contextmanager
def _troubles(root: Path) -> Iterator[None]:
    """Within it, what is wrong with the database as a whole is told as that."""
    try:
        yield
    except _OF_ROWS:
        raise
    except sqlalchemy.exc.DatabaseError as error:
        raise CatalogueError(f"{root}: {error.orig}", _hint(str(error.orig))) from error


_OF_ROWS = (sqlalchemy.exc.IntegrityError, sqlalchemy.exc.DataError, sqlalchemy.exc.ProgrammingError)
"""Errors of what is written, and not of the database."""


def _hint(error: str) -> str:
    if "locked" in error:
        return "somebody else writes into this repository; it is tried again"
    if "readonly" in error or "unable to open" in error:
        return "the manager's user must be allowed to write its database and the directory around it"
    if "full" in error:
        return "make room on its disk"
    return "look at the repository with `butler query-collections`"
