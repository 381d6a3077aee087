"""Raw images are registered in a real Butler repository: each once, where they lie, and readable there."""

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date
from io import BytesIO
from pathlib import Path

import pytest
from astropy.io import fits
from lsst.daf.butler import Butler, Config, DatasetRef

from common.files import Checksum
from common.process import run
from endpoint.catalogues.butler.catalogue import ButlerCatalogue
from endpoint.catalogues.butler.repository import SEED
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from tests.fits import Image, night

REPOSITORY = Path(__file__).parents[2]
RUN = "DECam/raw/all"
CHECKSUM = Checksum("sha256", "0" * 64)

# One group: the module's repository is made once, although the suite runs in several processes.
pytestmark = pytest.mark.xdist_group("butler")

# A catalogue's process: it tells each result as soon as it has it.
INGEST = """
import os, sys
from common.files import Checksum
from endpoint.catalogues.butler.catalogue import ButlerCatalogue
from endpoint.catalogues.contract import Request
catalogue = ButlerCatalogue({"repo": sys.argv[1]})
catalogue.open()
paths = [os.fsencode(path) for path in sys.argv[3:]]
requests = [Request(id, path, path, 0, Checksum("sha256", "")) for id, path in enumerate(paths)]
size = int(sys.argv[2])
for start in range(0, len(requests), size):
    for result in catalogue.ingest(requests[start : start + size]):
        print(result.id, result.verdict, flush=True)
catalogue.close()
"""


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that all tests share; each has a night of its own in it."""
    return tmp_path_factory.mktemp("butler") / "a repo.of ours"


@pytest.fixture(scope="module")
def catalogue(repo: Path) -> Iterator[ButlerCatalogue]:
    with closing(ButlerCatalogue({"repo": str(repo)})) as catalogue:
        catalogue.open()
        yield catalogue


@pytest.fixture
def reader(catalogue: ButlerCatalogue, repo: Path) -> Iterator[Butler]:
    """The repository as any of its users opens it."""
    with closing(Butler.from_config(str(repo / "butler.yaml"), writeable=False)) as butler:
        yield butler


def taken(day: int, exposures: int = 1, detectors: int = 1, *, mosaic: bool = False) -> list[Image]:
    """The images of a night that is one test's own."""
    numbers = {"exposures": exposures, "detectors": detectors, "first_number": 1000 * day}
    return list(night(date(2026, 5, day), **numbers, pixels=8, mosaic=mosaic))


def written(directory: Path, images: Sequence[Image]) -> list[bytes]:
    paths = [directory / image.path for image in images]
    for path, image in zip(paths, images, strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.content)
    return [bytes(path) for path in paths]


def put(directory: Path, name: bytes, content: bytes) -> bytes:
    path = os.path.join(bytes(directory), name)
    with open(path, "wb") as file:
        file.write(content)
    return path


def ingested(catalogue: ButlerCatalogue, paths: Sequence[bytes]) -> list[Result]:
    """The results for a batch, in its order; each file has one."""
    requests = [
        Request(number, path, os.path.basename(path), 0, CHECKSUM) for number, path in enumerate(paths)
    ]
    results = sorted(catalogue.ingest(requests), key=lambda result: result.id)
    assert [result.id for result in results] == list(range(len(paths)))
    return results


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    return [result.verdict for result in results]


def found(butler: Butler, day: int) -> dict[tuple[int, int], DatasetRef]:
    """A night's datasets by exposure and detector."""
    refs = butler.query_datasets(
        "raw", collections=RUN, where=f"instrument = 'DECam' AND day_obs = 202605{day:02d}", explain=False
    )
    return {(int(ref.dataId["exposure"]), int(ref.dataId["detector"])): ref for ref in refs}


def places(butler: Butler, day: int) -> dict[tuple[int, int], bytes]:
    return {key: os.fsencode(butler.getURI(ref).ospath) for key, ref in found(butler, day).items()}


def with_card(content: bytes, keyword: str, card: str) -> bytes:
    """A file in which another card has taken a keyword's place, the first such one."""
    start = content.index(f"{keyword:8}=".encode("ascii"))
    return content[:start] + f"{card:80}".encode("ascii") + content[start + 80 :]


def test_a_batch_is_registered_and_each_dataset_can_be_read(
    catalogue: ButlerCatalogue, repo: Path, reader: Butler, tmp_path: Path
) -> None:
    paths = written(tmp_path, taken(1, exposures=2, detectors=2))
    assert ingested(catalogue, paths) == [Result(number, Verdict.INGESTED) for number in range(4)]
    datasets = found(reader, 1)
    assert sorted(datasets) == [(1000, 1), (1000, 2), (1001, 1), (1001, 2)]
    assert places(reader, 1) == dict(zip(sorted(datasets), paths, strict=True))
    for (exposure, detector), ref in datasets.items():
        primary, image = reader.get(ref)
        assert primary.header["EXPNUM"] == exposure
        assert (image.header["CCDNUM"], image.data.shape) == (detector, (8, 8))
        header = reader.get(ref.makeComponentRef("header"))
        assert (header["EXPNUM"], header["CCDNUM"], header["NAXIS1"]) == (exposure, detector, 8)


def test_butlers_own_command_finds_what_was_ingested(
    catalogue: ButlerCatalogue, repo: Path, tmp_path: Path
) -> None:
    ingested(catalogue, written(tmp_path, taken(2, exposures=2, detectors=2)))
    command = [
        Path(sys.executable).with_name("butler"),
        "query-datasets",
        repo / "butler.yaml",
        "raw",
        "--collections",
        RUN,
    ]
    done = run(
        [str(word) for word in (*command, "--where", "instrument = 'DECam' AND day_obs = 20260502")],
        timeout=60,
    )
    assert done.exit_code == 0, done.stderr.decode()
    rows = [line.split() for line in done.stdout.decode().splitlines() if line.startswith(" raw ")]
    assert sorted((row[5], row[4]) for row in rows) == [
        ("2000", "1"),
        ("2000", "2"),
        ("2001", "1"),
        ("2001", "2"),
    ]


def test_the_records_are_those_of_rubins_own_ingest(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    (path,) = written(tmp_path, taken(3))
    ingested(catalogue, [path])
    (exposure,) = reader.query_dimension_records("exposure", where="exposure = 3000", instrument="DECam")
    told = exposure.toDict()
    timespan = told.pop("timespan")
    assert [time.isot for time in (timespan.begin, timespan.end)] == [
        "2026-05-03T23:58:37.000000",  # TAI
        "2026-05-04T00:00:07.000000",
    ]
    assert told == {
        "instrument": "DECam",
        "id": 3000,
        "physical_filter": "i DECam SDSS c0003 7835.0 1470.0",
        "obs_id": "ct4m20260503t235800",
        "group": "3000",
        "day_obs": 20260503,
        "exposure_time": 90.0,
        "dark_time": 91.04,
        "observation_type": "science",
        "observation_reason": "science",
        "seq_num": 3000,
        "seq_start": 3000,
        "seq_end": 3000,
        "target_name": "CDFS",
        "science_program": "2026A-0001",
        "tracking_ra": pytest.approx(52.9),
        "tracking_dec": -28.1,
        "sky_angle": 90.0,
        "azimuth": told["azimuth"],
        "zenith_angle": told["zenith_angle"],
        "has_simulated": False,
        "can_see_sky": True,
    }
    (day,) = reader.query_dimension_records("day_obs", where="day_obs = 20260503", instrument="DECam")
    assert [time.isot for time in (day.timespan.begin, day.timespan.end)] == [
        "2026-05-03T12:00:00.000000",
        "2026-05-04T12:00:00.000000",
    ]
    (detector,) = reader.query_dimension_records("detector", where="detector = 1", instrument="DECam")
    assert (detector.full_name, detector.name_in_raft, detector.raft) == ("S29", "29", "S")
    assert detector.purpose is None  # which no header tells


def test_a_file_of_several_detectors_gives_each_its_own(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    paths = written(tmp_path, taken(4, exposures=2, detectors=3, mosaic=True))
    assert verdicts(ingested(catalogue, paths)) == [Verdict.INGESTED] * 2
    assert places(reader, 4) == {
        (4000 + exposure, detector): paths[exposure] for exposure in (0, 1) for detector in (1, 2, 3)
    }
    for (exposure, detector), ref in found(reader, 4).items():
        primary, image = reader.get(ref)
        assert (primary.header["EXPNUM"], image.header["CCDNUM"]) == (exposure, detector)
        assert reader.get(ref.makeComponentRef("header"))["CCDNUM"] == detector


def test_a_file_with_nothing_but_a_primary_unit_is_registered(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    (image,) = taken(5)
    path = put(tmp_path, b"primary.fits", image.content[: image.content.index(b"XTENSION")])
    assert verdicts(ingested(catalogue, [path])) == [Verdict.INGESTED]
    (ref,) = found(reader, 5).values()
    assert len(reader.get(ref)) == 1
    assert reader.get(ref.makeComponentRef("header"))["CCDNUM"] == 1


def test_a_file_whose_pixels_are_compressed_is_registered(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    path = tmp_path / "mosaic.fits.fz"
    with fits.open(BytesIO(taken(19, detectors=2, mosaic=True)[0].content)) as units:
        primary, *images = units
        compressed = [fits.CompImageHDU(image.data, image.header) for image in images]
        fits.HDUList([primary, *compressed]).writeto(path)
    assert verdicts(ingested(catalogue, [bytes(path)])) == [Verdict.INGESTED]
    for (_, detector), ref in found(reader, 19).items():
        _, image = reader.get(ref)
        assert (image.header["CCDNUM"], image.data.shape) == (detector, (8, 8))
        assert reader.get(ref.makeComponentRef("header"))["CCDNUM"] == detector


def test_an_instrument_may_be_named_in_the_first_extension(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    (image,) = taken(6)
    content = with_card(image.content, "INSTRUME", "UNKNOWN = 'DECam   '")
    content = with_card(content, "FILENAME", "INSTRUME= 'DECam   '")
    filter_card = content[content.index(b"FILTER  =") :][:80].decode("ascii")
    content = with_card(with_card(content, "FILTER", "NOFILTER= ''"), "DETSEC", filter_card)
    assert verdicts(ingested(catalogue, [put(tmp_path, b"image.fits", content)])) == [Verdict.INGESTED]
    assert list(found(reader, 6)) == [(6000, 1)]


def test_the_same_file_again_is_there_already(
    catalogue: ButlerCatalogue, repo: Path, reader: Butler, tmp_path: Path
) -> None:
    paths = written(tmp_path, taken(7, detectors=2))
    first = verdicts(ingested(catalogue, [*paths, paths[0]]))
    again = verdicts(ingested(catalogue, paths))
    with closing(ButlerCatalogue({"repo": str(repo)})) as another:
        another.open()
        once_more = verdicts(ingested(another, paths))
    assert first == [Verdict.INGESTED, Verdict.INGESTED, Verdict.ALREADY]
    assert again == once_more == [Verdict.ALREADY] * 2
    assert len(found(reader, 7)) == 2


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "later"])
def test_another_file_for_the_same_dataset_is_a_conflict(
    together: bool, catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    day = 8 + together
    (path,) = written(tmp_path, taken(day))
    other = put(tmp_path, b"other.fits", Path(os.fsdecode(path)).read_bytes())
    batches = [[path, other]] if together else [[path], [other]]
    *_, (*_, conflict) = [ingested(catalogue, batch) for batch in batches]
    assert conflict.verdict is Verdict.CONFLICT
    assert conflict.reason == (
        f"raw instrument=DECam detector=1 exposure={day}000 "
        f"is {os.fsdecode(path)} there, and not {os.fsdecode(other)}"
    )
    assert places(reader, day) == {(day * 1000, 1): path}


def test_a_detector_that_contradicts_its_exposure_is_a_conflict_and_costs_the_others_nothing(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    first, second, third = written(tmp_path, taken(10, detectors=3))
    content = Path(os.fsdecode(second)).read_bytes()
    Path(os.fsdecode(second)).write_bytes(with_card(content, "OBJECT", "OBJECT  = 'elsewhere'"))
    results = ingested(catalogue, [first, second, third])
    assert verdicts(results) == [Verdict.INGESTED, Verdict.CONFLICT, Verdict.INGESTED]
    assert "elsewhere" in results[1].reason
    assert sorted(found(reader, 10)) == [(10000, 1), (10000, 3)]


def test_a_card_that_only_a_later_detector_has_is_not_overlooked(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    first, second = taken(21, detectors=2)
    without = put(tmp_path, b"without.fits", with_card(first.content, "OBJECT", "COMMENT"))
    results = ingested(catalogue, [without, put(tmp_path, b"with.fits", second.content)])
    assert verdicts(results) == [Verdict.INGESTED, Verdict.CONFLICT]
    assert "target_name" in results[1].reason
    assert list(found(reader, 21)) == [(21000, 1)]


ONE = taken(11)[0].content
OTHER = taken(18)[0].content
BAD = {
    "empty": (b"", "no FITS file: it is empty"),
    "text": (b"hello\n" * 1000, "no FITS file: it does not begin with SIMPLE"),
    "short": (ONE[:-2860], "truncated: 108 bytes of the data that its headers promise are missing"),
    "half": (ONE[:7000], "truncated: it ends within a header"),
    "instrument": (
        with_card(with_card(ONE, "INSTRUME", "INSTRUME= 'X'"), "FILTER", "FILTER  = 'g'"),
        "INSTRUME: X",
    ),
    "number": (with_card(ONE, "EXPNUM", "COMMENT"), "'exposure_id'"),
    "detector": (with_card(with_card(ONE, "CCDNUM", "COMMENT"), "CCDNUM", "COMMENT"), "'detector_num'"),
    "date": (with_card(ONE, "DATE-OBS", "DATE-OBS= 'yesterday'"), "did not match the format class isot"),
    "kind": (with_card(OTHER, "OBSTYPE", f"OBSTYPE = '{'x' * 30}'"), "observation_type"),
    "long": (with_card(OTHER, "FILTER", f"FILTER  = 'g DECam {'x' * 30}'"), "physical_filter"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_invalid_file_is_told_why_and_costs_the_others_nothing(
    name: str, catalogue: ButlerCatalogue, tmp_path: Path
) -> None:
    content, reason = BAD[name]
    good = taken(11, detectors=len(BAD))[list(BAD).index(name)]
    paths = [put(tmp_path, b"bad.fits", content), put(tmp_path, b"good.fits", good.content)]
    results = ingested(catalogue, paths)
    assert verdicts(results) == [Verdict.INVALID, Verdict.INGESTED]
    assert reason in results[0].reason
    assert "\n" not in results[0].reason


NAMES = [
    b"a#b.fits",
    b"a%20b.fits",
    b"a b.fits",
    b"new\nline.fits",
    b"q?x=1&y.fits",
    b"semi;colon:*.fits",
    b"quote'\"`$(x).fits",
    b"-dash.fits",
    b"back\\slash.fits",
    "ünï.fits".encode(),
    b"without extension",
    b"zip#zip-path=x.fits",
    b"%" * 250,
]


def test_any_name_that_butler_can_keep_is_kept(
    catalogue: ButlerCatalogue, reader: Butler, tmp_path: Path
) -> None:
    images = taken(12, detectors=len(NAMES))
    paths = [put(tmp_path, name, image.content) for name, image in zip(NAMES, images, strict=True)]
    assert verdicts(ingested(catalogue, paths)) == [Verdict.INGESTED] * len(NAMES)
    assert sorted(places(reader, 12).items()) == [
        ((12000, detector), path) for detector, path in enumerate(paths, start=1)
    ]
    for (_, detector), ref in found(reader, 12).items():
        assert reader.get(ref)[1].header["CCDNUM"] == detector
        assert reader.get(ref.makeComponentRef("header"))["CCDNUM"] == detector
    assert verdicts(ingested(catalogue, paths)) == [Verdict.ALREADY] * len(NAMES)


def test_a_name_that_butler_can_not_keep_is_invalid(catalogue: ButlerCatalogue, tmp_path: Path) -> None:
    (image,) = taken(13)
    (result,) = ingested(catalogue, [put(tmp_path, b"\xff.fits", image.content)])
    assert result == Result(0, Verdict.INVALID, "Butler can't name it: its path is no UTF-8")


def test_a_file_that_can_not_be_read_has_failed(catalogue: ButlerCatalogue, tmp_path: Path) -> None:
    (good,) = written(tmp_path, taken(14))
    results = ingested(catalogue, [bytes(tmp_path / "gone.fits"), bytes(tmp_path), good])
    assert verdicts(results) == [Verdict.FAILED, Verdict.FAILED, Verdict.INGESTED]
    assert [result.reason for result in results[:2]] == [
        "it can't be read: No such file or directory",
        "it can't be read: Is a directory",
    ]


def test_a_locked_repository_is_told_soon_and_blames_no_file(
    catalogue: ButlerCatalogue, repo: Path, tmp_path: Path
) -> None:
    (path,) = written(tmp_path, taken(15))
    with closing(ButlerCatalogue({"repo": str(repo), "busy_timeout": 0.1})) as hasty:
        hasty.open()
        with closing(sqlite3.connect(repo / "gen3.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CatalogueError, match="locked") as told:
                ingested(hasty, [path])
            assert "is tried again" in told.value.hint
            with pytest.raises(CatalogueError, match="locked"):
                ButlerCatalogue({"repo": str(repo), "busy_timeout": 0.1}).open()
            other.execute("ROLLBACK")
        assert verdicts(ingested(hasty, [path])) == [Verdict.INGESTED]


def start(repo: Path, size: int, paths: Sequence[bytes]) -> subprocess.Popen[str]:
    """A catalogue's process that ingests in batches of so many."""
    argv = [sys.executable, "-c", INGEST, str(repo), str(size), *map(os.fsdecode, paths)]
    return subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def test_after_a_kill_anywhere_a_repetition_leaves_every_dataset_there_once(
    catalogue: ButlerCatalogue, repo: Path, reader: Butler, tmp_path: Path
) -> None:
    paths = written(tmp_path, taken(16, exposures=4, detectors=10))
    told: set[int] = set()
    for results in (1, 9, 20):
        with start(repo, 4, paths) as process:
            assert process.stdout is not None
            for _ in range(results):
                told.add(int(process.stdout.readline().split()[0]))
            process.send_signal(signal.SIGKILL)
        # What was told before the kill is there.
        assert {paths[number] for number in told} <= set(places(reader, 16).values())
    with start(repo, 4, paths) as process:
        assert process.stdout is not None
        last = Counter(line.split(maxsplit=1)[1].strip() for line in process.stdout)
    assert process.returncode == 0
    assert last.keys() <= {"ingested", "already there"}
    assert last.total() == len(paths)
    assert list(dict(sorted(places(reader, 16).items())).values()) == paths
    for ref in found(reader, 16).values():
        assert reader.get(ref)[1].header["CCDNUM"] == ref.dataId["detector"]
        assert reader.get(ref.makeComponentRef("header"))["EXPNUM"] == ref.dataId["exposure"]


def test_two_processes_with_the_same_files_ingest_each_once(
    catalogue: ButlerCatalogue, repo: Path, reader: Butler, tmp_path: Path
) -> None:
    paths = written(tmp_path, taken(17, exposures=4, detectors=5))
    with start(repo, 3, paths) as one, start(repo, 4, paths) as other:
        assert one.stdout is not None
        assert other.stdout is not None
        told = Counter(line.split(maxsplit=1)[1].strip() for line in [*one.stdout, *other.stdout])
    assert told == {"ingested": 20, "already there": 20}
    assert sorted(places(reader, 17).values()) == sorted(paths)


def test_a_filter_gets_the_band_that_the_configuration_gives(tmp_path: Path) -> None:
    (path,) = written(tmp_path, taken(3))
    name = "i DECam SDSS c0003 7835.0 1470.0"
    repo = tmp_path / "repo"
    config = {"repo": str(repo), "bands": {name: "i"}, "run": "raw/{instrument}", "dataset_type": "image"}
    with closing(ButlerCatalogue(config)) as catalogue:
        catalogue.open()
        assert verdicts(ingested(catalogue, [path])) == [Verdict.INGESTED]
    with closing(Butler.from_config(str(repo))) as butler:
        (ref,) = butler.query_datasets(
            "image", collections="raw/DECam", where="instrument = 'DECam' AND band = 'i'"
        )
    assert ref.dataId["exposure"] == 3000


def test_a_repository_that_was_half_made_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "repo-being-made"
    half.mkdir()
    (half / "butler.yaml").write_text("{}")
    with closing(ButlerCatalogue({"repo": str(tmp_path / "repo")})) as catalogue:
        catalogue.open()
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_a_repository_that_exists_gets_the_dataset_type(tmp_path: Path) -> None:
    Butler.makeRepo(str(tmp_path / "repo"), config=Config(str(SEED)))
    with closing(ButlerCatalogue({"repo": str(tmp_path / "repo"), "create": False})) as catalogue:
        catalogue.open()
    with closing(Butler.from_config(str(tmp_path / "repo"))) as butler:
        assert butler.get_dataset_type("raw").storageClass_name == "FitsRaw"


def test_a_repository_that_can_not_be_used_is_told_with_what_to_do(tmp_path: Path) -> None:
    plain, corrupt, file = (tmp_path / name for name in ("plain", "corrupt", "file"))
    file.touch()
    Butler.makeRepo(str(plain))
    Butler.makeRepo(str(corrupt), config=Config(str(SEED)))
    (corrupt / "gen3.sqlite3").write_bytes(b"no database" * 1000)
    told = {}
    for name in ("none", "plain", "corrupt", "file/under"):
        catalogue = ButlerCatalogue({"repo": str(tmp_path / name), "create": name == "file/under"})
        with pytest.raises(CatalogueError) as error:
            catalogue.open()
        catalogue.close()
        told[name] = (error.value.message, error.value.hint)
    assert told == {
        "none": (f"{tmp_path}/none is no Butler repository", "correct `repo`, or set `create: true`"),
        "file/under": (
            f"{file}, which the repository is to lie in, is no directory",
            "make it, mount its disk, or correct `repo`",
        ),
        "plain": (
            f"{plain}: its butler.yaml does not know the storage class FitsRaw",
            f"put into it what {SEED} says",
        ),
        "corrupt": (
            f"{corrupt}: file is not a database",
            "look at the repository with `butler query-collections`",
        ),
    }


def test_a_collection_of_another_kind_is_told(catalogue: ButlerCatalogue, repo: Path, tmp_path: Path) -> None:
    paths = written(tmp_path, taken(20))
    with closing(Butler.from_config(str(repo / "butler.yaml"), writeable=True)) as butler:
        butler.collections.register("a run")
        types = type(butler.collections.get_info("a run").type)
        butler.collections.register("tagged", types["TAGGED"])
    with closing(ButlerCatalogue({"repo": str(repo), "run": "tagged"})) as other:
        other.open()
        with pytest.raises(CatalogueError, match="the collection tagged is not of type RUN"):
            ingested(other, paths)


def test_a_dataset_type_of_another_kind_is_told(catalogue: ButlerCatalogue, repo: Path) -> None:
    with closing(Butler.from_config(str(repo / "butler.yaml"), writeable=True)) as butler:
        other = type(butler.get_dataset_type("raw"))(
            "other", {"instrument", "exposure"}, "FitsRaw", universe=butler.dimensions
        )
        butler.registry.registerDatasetType(other)
    with pytest.raises(CatalogueError, match="dataset type other is defined otherwise") as error:
        ButlerCatalogue({"repo": str(repo), "dataset_type": "other"}).open()
    assert "give another `dataset_type`" in error.value.hint


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({}, "repo: is missing; it is the path of the Butler repository"),
        ({"repo": 3}, "repo: must be a path"),
        ({"repo": "here/repo"}, "repo: must be an absolute path, not here/repo"),
        ({"repo": "/r#1"}, "repo: Butler has no repository in a path with one of # % ?"),
        ({"repo": "/r", "create": "yes"}, "create: must be true or false"),
        ({"repo": "/r", "run": "{detector}"}, "run: {instrument} is the one placeholder that is known here"),
        ({"repo": "/r", "run": "{"}, "run: Single '{' encountered in format string"),
        (
            {"repo": "/r", "dataset_type": "a b"},
            "dataset_type: must be a name of letters, digits and underscores",
        ),
        ({"repo": "/r", "bands": "g"}, "bands: must give a band for each physical filter, by its name"),
        ({"repo": "/r", "bands": {"g": 1}}, "bands.g: must be the name of a band"),
        ({"repo": "/r", "busy_timeout": -1}, "busy_timeout: must be a number of seconds, 300 at most"),
        (
            {"repo": "/r", "rebo": 1},
            "rebo: unknown; known are repo, create, run, dataset_type, bands, busy_timeout",
        ),
    ],
)
def test_a_wrong_configuration_is_told_before_anything_is_opened(
    config: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the whole message is compared
        ButlerCatalogue(config)
    assert str(error.value) == problem


def test_until_it_is_opened_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from endpoint.catalogues.butler.catalogue import ButlerCatalogue\n"
        "print(ButlerCatalogue({'repo': '/nowhere'}).version())\n"
        "print({name.split('.')[0] for name in sys.modules} & {'lsst', 'astropy', 'numpy', 'sqlalchemy'})"
    )
    done = run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=30)
    version, heavy = done.stdout.decode().splitlines()
    assert version.startswith("lsst-daf-butler 30.")
    assert heavy == "set()"
