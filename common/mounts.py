"""On what a file lies: the kind of filesystem, whether other hosts may write to it, whether it is mounted."""

import os
from contextlib import suppress
from dataclasses import dataclass

# fmt: off
_SHARED = frozenset((
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse", "gfs2", "glusterfs", "gpfs", "lustre", "nfs",
    "nfs4", "ocfs2", "orangefs", "panfs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "wekafs",
))
# fmt: on


def filesystem(descriptor: int) -> str:
    """The type of the filesystem of an open file, as the kernel calls it: ``ext4``, ``nfs4``, ``fuse.sshfs``.

    Empty where the mount is hidden from this process. A device number would not tell: btrfs gives
    each subvolume one of its own.
    """
    with open(f"/proc/self/fdinfo/{descriptor}", "rb") as about:
        mount = next((line.split()[1] for line in about if line.startswith(b"mnt_id:")), b"")
    with open("/proc/self/mountinfo", "rb") as mounts:
        for line in mounts:
            words = line.split(b" ")
            if words[0] == mount:
                # A hyphen ends the optional fields, which begin at the seventh (proc(5)).
                return words[words.index(b"-", 6) + 1].decode()
    return ""


@dataclass(frozen=True, slots=True)
class Ground:
    """A directory and the mount that it was seen in: without that, what it shows is not what it holds."""

    path: bytes
    point: bytes
    """Where that is mounted."""
    is_remembered: bool = False
    """It was so for an earlier manager; if anything lies in the directory, that is no longer meant."""

    @classmethod
    def under(cls, path: bytes) -> "Ground":
        point = os.path.realpath(path)
        while not os.path.ismount(point):
            point = os.path.dirname(point)
        return cls(path, point)

    def remembered(self, point: bytes | None) -> "Ground":
        """It on the mount that it had before, if that is missing now and the directory is empty."""
        real = os.path.realpath(self.path)
        if point is None or os.path.commonpath([point, real]) != point:
            return self
        before = Ground(self.path, point, is_remembered=True)
        return before if before.trouble() else self

    def trouble(self) -> str:
        """What is wrong with it now; empty while it can be worked with."""
        path, point = os.fsdecode(self.path), os.fsdecode(self.point)
        if not os.path.ismount(self.point):
            if not self.is_remembered:
                return f"{point} is not mounted any more"
            if self._is_empty():
                return f"{point} is not mounted as before, and {path} is empty"
        return "" if os.path.isdir(self.path) else f"{path} is not there"

    def _is_empty(self) -> bool:
        with suppress(OSError), os.scandir(self.path) as entries:
            return next(entries, None) is None
        return True


def is_shared(name: str) -> bool:
    """Whether other hosts may write to a filesystem of that type behind this kernel's back."""
    return name.partition(".")[0] in _SHARED
