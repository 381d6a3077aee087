"""How values are kept in the ledger's columns."""

import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import Checksum, Fence
from common.ledger.columns import by_path, checksum_columns, checksum_of, fence_columns, fence_of

ANY = st.integers(-(2**70), 2**70)


@given(st.builds(Fence, ANY, st.integers(0, 2**63 - 1), ANY, ANY))
def test_a_fence_comes_back_as_it_was(fence: Fence) -> None:
    connection = sqlite3.connect(":memory:")
    assert fence_of(*connection.execute("SELECT ?, ?, ?, ?", fence_columns(fence)).fetchone()) == fence
    connection.close()


@pytest.mark.parametrize("checksum", [None, Checksum("sha256", "ab" * 32), Checksum("blake2b", "0f" * 64)])
def test_a_checksum_comes_back_as_it_was(checksum: Checksum | None) -> None:
    algorithm, digest = checksum_columns(checksum)
    assert checksum_of(checksum.algorithm if checksum else None, digest) == checksum
    assert algorithm == (checksum.algorithm if checksum else None)


@pytest.mark.parametrize("length", [0, 1, 2, 16, 17, 512, 513, 1100])
def test_any_number_of_paths_is_looked_up_by_few_statements(length: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE files (path BLOB)")
    paths = [b"%d" % number for number in range(length)]
    connection.executemany("INSERT INTO files VALUES (?)", [(path,) for path in [*paths, b"other"]])
    run = set[int]()
    connection.set_trace_callback(lambda statement: run.add(statement.count(",")))
    found = by_path(connection, "SELECT path FROM files WHERE path IN ({paths})", paths)
    assert sorted(path for (path,) in found) == sorted(paths)
    assert run <= {0, 15, 511}
    connection.close()
