"""What a visit is made of: definitions for the shell, answers, notes, receipts, mounts."""

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import Failure, RemoteError, Scope
from common.exchange import Receipts, delivery_note, is_plain_name, read_receipts
from common.files import Checksum
from common.ledger.rows import Receipt
from common.process import run
from common.room import Room
from handoff.script import Answer, Definitions, batch_name, file_failure, whole_failure
from handoff.survey import mount_of
from handoff.visit import Expected

SHA = Checksum("sha256", "0f" * 32)
BLAKE = Checksum("blake2b", "0f" * 64)
PATHS = st.binary(min_size=1).filter(
    lambda path: b"\0" not in path and {b"", b".", b".."}.isdisjoint(path.split(b"/"))
)
WORDS = st.lists(st.binary().map(lambda word: word.replace(b"\0", b"")), max_size=20)


@pytest.mark.parametrize("name", ["visit.sh", "place.sh", "stream.sh", "survey.sh"])
def test_the_scripts_lie_beside_the_module(name: str) -> None:
    assert files("handoff").joinpath(name).read_text().startswith("# ")


@given(WORDS)
def test_a_list_calls_its_command_with_exactly_its_items(words: list[bytes]) -> None:
    definitions = Definitions()
    definitions.add_list("items", words)
    definitions.add_list("pairs", words[: len(words) // 2 * 2], each=2)
    script = bytes(definitions) + b'show() { printf \'%s\\0\' "$#" "$@"; }; items show; pairs show'
    shown = run(["sh"], stdin=script).stdout.split(b"\0")[:-1]
    pairs = [word for at in range(0, len(words) // 2 * 2, 2) for word in (b"2", *words[at : at + 2])]
    assert shown == [str(len(words)).encode(), *words, *pairs]


def test_variables_have_the_values_that_they_are_given() -> None:
    definitions = Definitions(a=b"it's $(x)\n\xff", b="ü", c=3, d=True, e=False)
    script = bytes(definitions) + b'printf "%s|" "$a" "$b" "$c" "$d" "$e"'
    assert run(["sh"], stdin=script).stdout == b"it's $(x)\n\xff|\xc3\xbc|3|yes|no|"


def test_an_answer_is_read_as_records_and_what_comes_behind_them() -> None:
    output = b"mark start 1.00\0mark look 1.25\0tick\0staged f 1 1 a\nend \0space x 10 5 2 0 0\0end\0rest\0"
    answer = Answer.read(output)
    assert answer.one("staged") == b"f 1 1 a\nend "
    assert answer.all("mark") == [b"start 1.00", b"look 1.25"]
    assert answer.durations() == {"look": 0.25}
    assert answer.room("x") == Room(20, 50, None, None)
    assert answer.room("y") is None
    assert "tick" in answer
    assert answer.rest == b"rest\0"


@pytest.mark.parametrize("output", [b"", b"mark start 1\0", b"verified\0en", b"end"])
def test_an_answer_without_its_end_is_none(output: bytes) -> None:
    with pytest.raises(RemoteError, match="answer") as caught:
        Answer.read(output)
    assert caught.value.failure.scope is Scope.ENDPOINT
    assert caught.value.failure.hint


def test_an_answer_may_tell_a_failure_of_the_whole_visit() -> None:
    with pytest.raises(RemoteError) as caught:
        Answer.read(b"fail note head: error writing 'standard output': No space left on device\0end\0")
    assert caught.value.failure == Failure(
        Scope.ENDPOINT,
        "endpoint full",
        "the delivery note can't be written into the endpoint's staging: "
        "head: error writing 'standard output': No space left on device",
        "make room at the endpoint, on the filesystem of endpoint.staging",
    )


@pytest.mark.parametrize(
    ("message", "scope", "cause"),
    [
        (b"cp: x: No space left on device", Scope.ENDPOINT, "endpoint full"),
        (b"cp: x: Disk quota exceeded", Scope.ENDPOINT, "endpoint over quota"),
        (b"cp: x: Read-only file system", Scope.ENDPOINT, "endpoint read-only"),
        (b"cp: x: Input/output error", Scope.ENDPOINT, "endpoint disk trouble"),
        (b"cp: x: Invalid cross-device link", Scope.ENDPOINT, "endpoint staging and buffer apart"),
        (b"cp: x: Permission denied", Scope.FILE, "not placed"),
        (b"cp: x: File name too long", Scope.FILE, "not placed"),
        (b"", Scope.FILE, "not placed"),
    ],
)
def test_a_message_tells_whether_one_file_is_to_blame(message: bytes, scope: Scope, cause: str) -> None:
    failure = file_failure(message, "a")
    assert (failure.scope, failure.cause) == (scope, cause)


def test_a_message_has_no_control_codes_in_it() -> None:
    assert whole_failure(b"cp: '\x1b[31m\xff'\n", "it failed").reason == "it failed: cp: '\\x1b[31m\\xff'"


@pytest.mark.parametrize("path", [b"", b"/a", b"a/", b"a//b", b"./a", b"a/..", b"..", b"a\0b"])
def test_a_path_that_leads_elsewhere_is_not_expected(path: bytes) -> None:
    with pytest.raises(ValueError, match="not a plain relative path"):
        Expected(path, 0, SHA)


@pytest.mark.parametrize("name", [b"", b"batch-1", b"batch-0123456789abcdef-", b"batch-0123456789abcdef-1/x"])
def test_only_a_batch_of_ours_has_a_batch_s_name(name: bytes) -> None:
    assert batch_name(b"batch-0123456789abcdef-12") == b"batch-0123456789abcdef-12"
    with pytest.raises(ValueError, match="not the name of a batch"):
        batch_name(name)


def test_a_note_has_a_line_for_each_file() -> None:
    note = delivery_note([Expected(b"a\nb", 3, SHA), Expected(b"\xff", 0, BLAKE)], "2026-07-01T00:00:00Z")
    assert [json.loads(line) for line in note.splitlines()] == [
        {
            "path": "a\nb",
            "size": 3,
            "algorithm": "sha256",
            "digest": SHA.digest,
            "sent": "2026-07-01T00:00:00Z",
        },
        {
            "path": {"base64": "/w=="},
            "size": 0,
            "algorithm": "blake2b",
            "digest": BLAKE.digest,
            "sent": "2026-07-01T00:00:00Z",
        },
    ]
    assert note.endswith(b"\n")


@given(PATHS)
def test_a_path_in_a_note_and_in_a_receipt_is_the_same(path: bytes) -> None:
    noted = json.loads(delivery_note([Expected(path, 0, SHA)], ""))
    assert read_receipts({b"r.jsonl": _line(path=noted["path"])}).records == (
        Receipt(path, SHA, "stored", 1_782_864_000_123),
    )


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"{}",
        b"null",
        b"9" * 5000,
        b"[" * 100_000,
    ],
)
def test_a_line_that_is_no_receipt_is_told_and_harms_no_other(line: bytes) -> None:
    content = b"\n".join([_line(path="a"), line, _line(path="b")])
    receipts = read_receipts({b"r.jsonl": content})
    assert [receipt.path for receipt in receipts.records] == [b"a", b"b"]
    assert receipts.names == (b"r.jsonl",)
    assert len(receipts.malformed) == 1
    assert receipts.malformed[0].startswith("r.jsonl:2: ")


@pytest.mark.parametrize(
    "change",
    [
        {"path": 1},
        {"path": "\ud800"},
        {"path": {"base64": "*"}},
        {"path": {}},
        {"digest": "0f"},
        {"digest": None},
        {"digest": "0F" * 32},
        {"algorithm": "md5"},
        {"algorithm": ["sha256"]},
        {"state": "lost"},
        {"state": {}},
        {"at": "yesterday"},
        {"at": 5},
        {"at": "2026-07-01T00:00:00"},
    ],
)
def test_a_field_that_makes_no_sense_spoils_its_line_alone(change: dict[str, object]) -> None:
    receipts = read_receipts({b"r.jsonl": _line(**change) + b"\n" + _line(path="b")})
    assert [receipt.path for receipt in receipts.records] == [b"b"]
    assert len(receipts.malformed) == 1


def test_a_receipt_may_be_empty() -> None:
    assert read_receipts({b"r.jsonl": b""}) == Receipts({b"r.jsonl": ()})


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (b"a-1.jsonl", True),
        (b"-a.jsonl", False),
        (b".a.jsonl", False),
        (b"a/b.jsonl", False),
        (b"a\n.jsonl", False),
    ],
)
def test_receipts_have_plain_names(name: bytes, is_one: bool) -> None:
    assert is_plain_name(name) is is_one


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        (b"/", "1"),
        (b"/data", "2"),
        (b"/data/buffer/x", "4"),
        (b"/data/buffers", "2"),
        (b"/a b\n/x", "5"),
        (b"/back\\slash", "6"),
        (b"/elsewhere", "1"),
    ],
)
def test_a_path_lies_in_the_mount_whose_point_is_nearest(path: bytes, mount: str) -> None:
    mounts = b"\n".join(
        b"%d 1 8:1 / %s rw,relatime shared:1 - ext4 /dev/sda rw" % (number, point)
        for number, point in enumerate(
            [b"/", b"/data", b"/data/buffer", b"/data/buffer", rb"/a\040b\012", rb"/back\134slash"], 1
        )
    )
    assert mount_of(path, mounts) == mount


def test_where_mounts_are_hidden_nothing_is_known_of_them() -> None:
    assert mount_of(b"/data", b"") is None


def _line(**change: object) -> bytes:
    line = {
        "path": "a",
        "digest": SHA.digest,
        "algorithm": "sha256",
        "state": "stored",
        "at": "2026-07-01T00:00:00.123Z",
    }
    return json.dumps(line | change).encode()
