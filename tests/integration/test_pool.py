"""The pool with real processes."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from multiprocessing.connection import wait
from pathlib import Path

import psutil
import pytest

from common.pool import Answer, Crash, Pool, Progress, Reserve
from tests.integration.workers import EchoRecipe
from tests.runs import eventually


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def pool(trace: Path) -> Iterator[Pool[str, str]]:
    pool: Pool[str, str] = Pool(2, Reserve())
    pool.brief(EchoRecipe(str(trace)))
    yield pool
    pool.close()


def answers(pool: Pool[str, str], count: int) -> list[Answer[str, str]]:
    """Wait for so many answers."""
    got: list[Answer[str, str]] = []
    deadline = time.monotonic() + 20
    while len(got) < count:
        assert time.monotonic() < deadline, f"only {got} came"
        wait(pool.waitables(), 1)
        got += pool.collect()
    return got


def test_each_worker_answers_its_own_task(pool: Pool[str, str]) -> None:
    pool.submit(0, "a")
    pool.submit(1, "b")
    assert pool.idle() == []
    assert sorted(answers(pool, 2), key=lambda answer: answer.number) == [
        Answer(0, "a", "0: a"),
        Answer(1, "b", "1: b"),
    ]
    assert pool.idle() == [0, 1]


def test_a_worker_may_start_before_it_is_known_what_it_is_to_be(trace: Path) -> None:
    before = psutil.Process().children()
    with Reserve("tests.integration.workers") as reserve:
        reserve.call_up()
        (early,) = (child for child in psutil.Process().children() if child not in before)
        pool: Pool[str, str] = Pool(2, reserve)
        pool.brief(EchoRecipe(str(trace)))
        try:
            pool.submit(0, "pid")
            assert [answer.result for answer in answers(pool, 1)] == [str(early.pid)]
        finally:
            pool.close()


def test_workers_that_no_pool_has_taken_go_with_the_reserve() -> None:
    before = psutil.Process().children()
    with Reserve() as reserve:
        reserve.call_up()
        reserve.call_up()
        assert len(psutil.Process().children()) == len(before) + 2
    assert psutil.Process().children() == before


def _assert_pool_of_one_has_one(reserve: Reserve, before: list[psutil.Process]) -> None:
    pool: Pool[str, str] = Pool(1, reserve)
    with closing(pool):
        pool.start()
        assert len(psutil.Process().children()) == len(before) + 1


def test_an_early_worker_that_cannot_start_is_started_when_it_is_taken() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Reserve() as reserve:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            reserve.call_up()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        _assert_pool_of_one_has_one(reserve, psutil.Process().children())


def test_workers_beyond_the_size_of_the_pool_go_when_it_starts() -> None:
    before = psutil.Process().children()
    with Reserve() as reserve:
        reserve.call_up()
        reserve.call_up()
        _assert_pool_of_one_has_one(reserve, before)


def test_workers_beyond_the_first_two_are_started_one_after_another(trace: Path) -> None:
    pool: Pool[str, str] = Pool(4, Reserve(), ramp=1.0)
    pool.brief(EchoRecipe(str(trace)))
    try:
        pool.start()
        assert pool.idle() == [0, 1]
        pool.submit(0, "tell 1")
        pool.submit(1, "tell 1")
        assert pool.idle() == []
        assert eventually(pool.idle) == [2]
    finally:
        pool.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_is_meant_for_the_parent_ends_no_worker(
    pool: Pool[str, str], number: signal.Signals
) -> None:
    pool.submit(0, "pid")
    [before] = answers(pool, 1)
    os.kill(int(str(before.result)), number)
    pool.submit(0, "pid")
    assert answers(pool, 1) == [before]


def test_an_exception_is_told_and_the_worker_lives_on(pool: Pool[str, str]) -> None:
    pool.submit(0, "pid")
    before = answers(pool, 1)
    pool.submit(0, "raise no")
    [answer] = answers(pool, 1)
    assert isinstance(answer.result, Crash)
    assert answer.result.reason == "ValueError: no"
    assert "Traceback" in answer.result.detail
    pool.submit(0, "pid")
    assert answers(pool, 1) == before


def test_a_worker_that_dies_costs_its_own_task_alone(pool: Pool[str, str]) -> None:
    pool.submit(0, "die")
    pool.submit(1, "tell 7")
    crashed, fine = sorted(answers(pool, 2), key=lambda answer: answer.number)
    assert isinstance(crashed.result, Crash)
    assert "died (-9)" in crashed.result.reason
    assert fine == Answer(1, "tell 7", "1: tell 7")
    pool.submit(0, "again")
    assert answers(pool, 1) == [Answer(0, "again", "0: again")]


def test_a_worker_that_died_is_started_again_although_another_has_nothing_to_do(
    pool: Pool[str, str],
) -> None:
    pool.submit(0, "die")
    pool.submit(1, "tell 7")
    answers(pool, 2)
    assert pool.idle() == [1, 0]
    pool.submit(0, "a")
    assert answers(pool, 1) == [Answer(0, "a", "0: a")]


def test_progress_is_seen_while_the_worker_works(pool: Pool[str, str]) -> None:
    pool.submit(1, "tell 42")
    while pool.progress(1) is None:
        wait(pool.waitables(), 1)
        assert list(pool.collect()) == []
    assert pool.progress(1) == Progress("thinking", 42)
    answers(pool, 1)


def test_a_worker_that_is_ended_over_its_task_takes_its_children_along(pool: Pool[str, str]) -> None:
    pool.submit(0, "sleep 1000")
    children = _sleepers(1)
    pool.close()
    assert psutil.wait_procs(children, timeout=5)[1] == []


def test_idle_workers_close_what_they_opened(pool: Pool[str, str], trace: Path) -> None:
    pool.submit(0, "a")
    answers(pool, 1)
    pool.close()
    assert trace.read_text().splitlines() == ["opened 0", "closed 0"]


def test_workers_that_were_never_told_what_to_be_go_as_well() -> None:
    before = psutil.Process().children()
    pool: Pool[str, str] = Pool(2, Reserve())
    pool.start()
    workers = [child for child in psutil.Process().children() if child not in before]
    pool.close()
    assert [worker for worker in workers if worker.is_running()] == []
    assert len(workers) == 2


def test_workers_and_their_children_die_with_their_parent(trace: Path) -> None:
    program = (
        "import sys\n"
        "from common.pool import Pool, Reserve\n"
        "from tests.integration.workers import EchoRecipe\n"
        f"pool = Pool(1, Reserve()); pool.brief(EchoRecipe({str(trace)!r})); pool.submit(0, 'sleep 1001')\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as manager:
        assert manager.stdout is not None
        assert manager.stdout.readline() == "up\n"
        children = _sleepers(1, seconds="1001")
        family = [*psutil.Process(manager.pid).children(recursive=True), *children]
        os.kill(manager.pid, signal.SIGKILL)
        assert len(family) >= 2
        assert psutil.wait_procs(family, timeout=5)[1] == []


def _sleepers(count: int, seconds: str = "1000") -> list[psutil.Process]:
    """Wait until so many `sleep` programs run, and return them."""
    deadline = time.monotonic() + 20
    while True:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.cmdline() == ["sleep", seconds]:
                    found.append(process)
        if len(found) == count:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.02)
