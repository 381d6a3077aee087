"""What kind of filesystem a file lies on, and whether other hosts may write to it too."""

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


def is_shared(name: str) -> bool:
    """Whether other hosts may write to a filesystem of that type behind this kernel's back."""
    return name.partition(".")[0] in _SHARED
