"""The catalogue `command`: a program's exit code, its report, or what it has taken, tells of each file."""

import os
import sys
from ast import literal_eval
from collections.abc import Mapping
from pathlib import Path

import pytest

from endpoint.catalogues.command import CommandCatalogue
from endpoint.catalogues.contract import CatalogueError, Request, Result, Verdict
from endpoint.catalogues.host import Host
from tests.catalogues import HOSTILE_NAMES, requests, stand_in

HEAD = f"#!{sys.executable} -SE\nimport json, os, sys\n"
NOTE = "open({log!r}, 'a').write(ascii(sys.argv[1:]) + chr(10))\n"


def ingest(
    directory: Path, script: str, asked: list[Request], run: str | list[str], **config: object
) -> list[Result]:
    """What comes of it with a program `ingest-them` of this Python code, which notes how it is called."""
    note = NOTE.format(log=str(directory / "log"))
    path = stand_in(directory, "ingest-them", HEAD + note + script)
    with Host("command", {"run": run, **config}, timeout=60, env={"PATH": path}) as host:
        return sorted(host.ingest(asked), key=lambda result: result.id)


def calls(directory: Path) -> list[list[bytes]]:
    """The arguments of each run of the program, in order."""
    lines = (directory / "log").read_text().splitlines()
    return [[os.fsencode(word) for word in literal_eval(line)] for line in lines]


def verdicts(results: list[Result]) -> list[Verdict]:
    return [result.verdict for result in results]


def test_all_files_of_a_batch_go_to_one_run(tmp_path: Path) -> None:
    asked = requests(tmp_path / "storage", HOSTILE_NAMES)
    found = ingest(tmp_path, "", asked, "ingest-them --into '/my repo' {files} --now")
    assert verdicts(found) == [Verdict.INGESTED] * len(asked)
    assert calls(tmp_path) == [[b"--into", b"/my repo", *(one.path for one in asked), b"--now"]]


def test_a_template_for_one_file_is_run_for_each(tmp_path: Path) -> None:
    asked = requests(tmp_path / "storage", HOSTILE_NAMES)
    found = ingest(tmp_path, "", asked, ["ingest-them", "--file={file}", "{name}"])
    assert verdicts(found) == [Verdict.INGESTED] * len(asked)
    assert calls(tmp_path) == [[b"--file=" + one.path, one.name] for one in asked]


def test_a_batch_that_fails_is_tried_file_by_file(tmp_path: Path) -> None:
    script = "bad = [path for path in sys.argv[1:] if 'bad' in path]\n"
    script += "if bad: sys.exit(f'no header in {len(bad)} file\\n')"
    asked = requests(tmp_path / "storage", [b"a", b"bad", b"c"])
    assert ingest(tmp_path, script, asked, "ingest-them {files}") == [
        Result(1, Verdict.INGESTED),
        Result(2, Verdict.FAILED, "exit code 1: no header in 1 file"),
        Result(3, Verdict.INGESTED),
    ]
    assert [len(call) for call in calls(tmp_path)] == [3, 1, 1, 1]


def test_a_program_that_is_killed_or_takes_too_long_fails_with_that(tmp_path: Path) -> None:
    script = "import signal, time\n"
    script += "time.sleep(100) if 'slow' in sys.argv[1] else os.kill(os.getpid(), signal.SIGTERM)"
    asked = requests(tmp_path / "storage", [b"slow", b"other"])
    assert ingest(tmp_path, script, asked, "ingest-them {file}", timeout="500ms") == [
        Result(1, Verdict.FAILED, "killed after 1 s"),
        Result(2, Verdict.FAILED, "killed by signal 15"),
    ]


def test_its_report_counts_more_than_its_exit_code(tmp_path: Path) -> None:
    script = """
states = dict(a="ingested", b="already", c="conflict", d="invalid", e="ignored", f="failed")
with open(sys.argv[1], "w") as report:
    report.write("nonsense\\n[]\\n{}\\n" + json.dumps({"path": 5, "state": "ingested"}) + "\\n")
    for path in sys.argv[2:]:
        state = states.get(os.path.basename(path)[0])
        if state:
            report.write(json.dumps({"path": path, "state": state, "reason": f"it is {state}"}) + "\\n")
sys.exit(3)
"""
    asked = requests(tmp_path / "storage", [b"a", b"b", b"c", b"d", b"e", b"f \xff", b"silent"])
    assert ingest(tmp_path, script, asked, "ingest-them {report} {files}") == [
        Result(1, Verdict.INGESTED, "it is ingested"),
        Result(2, Verdict.ALREADY, "it is already"),
        Result(3, Verdict.CONFLICT, "it is conflict"),
        Result(4, Verdict.INVALID, "it is invalid"),
        Result(5, Verdict.IGNORED, "it is ignored"),
        Result(6, Verdict.FAILED, "it is failed"),
        Result(7, Verdict.FAILED, "exit code 3"),
    ]


def test_a_report_may_give_names_and_base64_and_may_be_missing(tmp_path: Path) -> None:
    script = """
import base64
if b"quiet" not in os.fsencode(sys.argv[2]):
    with open(sys.argv[1], "w") as report:
        name = {"base64": base64.b64encode(os.fsencode(sys.argv[2])).decode()}
        report.write(json.dumps({"path": name, "state": "invalid"}))
"""
    asked = requests(tmp_path / "storage", [b"n\xffame", b"quiet"])
    assert ingest(tmp_path, script, asked, "ingest-them {report} {name}") == [
        Result(1, Verdict.INVALID),
        Result(2, Verdict.INGESTED),
    ]
    assert not os.path.exists(os.path.dirname(calls(tmp_path)[0][0]))


def test_a_file_that_the_program_has_taken_away_is_ingested(tmp_path: Path) -> None:
    script = "for path in sys.argv[1:]:\n    if 'bad' not in path: os.unlink(path)\n"
    script += "sys.stderr.write('one is bad\\n'); sys.exit('bad' in path)"
    asked = requests(tmp_path / "buffer", [b"a", b"bad", b"c"])
    left = "ingest-them left it where it was (exit code 1: one is bad)"
    taken = {"run": "ingest-them {files}", "is_taken": True}
    found = ingest(tmp_path, script, asked, **taken)  # type: ignore[arg-type]
    assert found == [
        Result(1, Verdict.INGESTED),
        Result(2, Verdict.FAILED, left),
        Result(3, Verdict.INGESTED),
    ]
    assert calls(tmp_path) == [[one.path for one in asked], [asked[1].path]]
    again = ingest(tmp_path, script, asked, **taken)  # type: ignore[arg-type]
    assert verdicts(again) == [Verdict.ALREADY, Verdict.FAILED, Verdict.ALREADY]


def test_many_long_names_go_to_several_runs(tmp_path: Path) -> None:
    asked = requests(tmp_path / "storage", [b"%0200d/%0200d" % (n, n) for n in range(1000)])
    found = ingest(tmp_path, "", asked, "ingest-them {files}")
    assert set(verdicts(found)) == {Verdict.INGESTED}
    assert [path for call in calls(tmp_path) for path in call] == [one.path for one in asked]
    assert 1 < len(calls(tmp_path)) < 5


def test_a_program_that_is_not_there_is_no_files_fault(tmp_path: Path) -> None:
    with Host("command", {"run": "no-such-program {files}"}, timeout=10) as host:
        for ask in (host.version, lambda: list(host.ingest(requests(tmp_path, [b"a"])))):
            with pytest.raises(CatalogueError, match="no-such-program: not found") as raised:
                ask()
            assert raised.value.hint.startswith("install no-such-program")


def test_a_program_that_goes_away_is_no_files_fault(tmp_path: Path) -> None:
    program = stand_in(tmp_path, "ingest-them", HEAD).split(":")[0] + "/ingest-them"
    catalogue = CommandCatalogue({"run": f"{program} {{files}}"})
    catalogue.open()
    os.unlink(program)
    with pytest.raises(CatalogueError, match="not found"):
        list(catalogue.ingest(requests(tmp_path, [b"a"])))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "run: must be a command, such as 'ingest --into /repo {files}'"),
        ({"run": []}, "run: must be a command, such as 'ingest --into /repo {files}'"),
        ({"run": "a 'b {files}"}, "run: can't be split into words: no closing quotation"),
        ({"run": "a {flies}"}, "run: uses {flies}, which is nothing; did you mean {files}?"),
        ({"run": "a {}"}, "run: must contain {files} for all files of a batch, or {file} for one at a time"),
        ({"run": "a {files} {file}"}, "run: must contain either {files}, or {file} and {name}, not both"),
        (
            {"run": "a --f={files}"},
            "run: must have {files} as a word of its own; it becomes one argument for each file",
        ),
        ({"run": "{file} a"}, "run: must begin with the name of a program"),
        ({"run": "a {file}", "is_taken": "yes"}, "is_taken: must be true or false"),
        ({"run": "a {file}", "istaken": True}, "istaken: unknown key; did you mean is_taken?"),
    ],
)
def test_a_wrong_configuration_is_told(config: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared
        CommandCatalogue(config)
    assert str(raised.value) == message


def test_a_wrong_time_limit_is_told() -> None:
    with pytest.raises(ValueError, match=r"^timeout: must be seconds"):
        CommandCatalogue({"run": "a {file}", "timeout": "soon"})
