"""What can be said of scanning without a filesystem."""

import pytest

from common.files import BufferedFile, Fence
from common.mounts import is_shared
from common.scan import Odd, Page, Unreadable


def test_a_page_sorts_what_was_seen() -> None:
    file, odd, unreadable = BufferedFile(b"a", Fence(1, 2, 3, 4)), Odd(b"b", "fifo"), Unreadable(b"c", "no")
    assert Page.of([odd, file, unreadable]) == Page((file,), (odd,), (unreadable,))


@pytest.mark.parametrize("name", ["nfs", "nfs4", "cifs", "fuse", "fuse.sshfs", "ceph", "lustre", "9p"])
def test_other_hosts_may_write_to_a_network_filesystem(name: str) -> None:
    assert is_shared(name)


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "nfsd", ""])
def test_only_this_host_writes_to_a_local_filesystem(name: str) -> None:
    assert not is_shared(name)
