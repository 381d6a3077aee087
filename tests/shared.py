"""A filesystem of a kind that other hosts may write to: one file behind the kernel's FUSE interface."""

import errno
import os
import stat
import struct
from pathlib import Path

from tests.apart import die_with_parent, mount

NAME = b"exposure.fits"

_LOOKUP, _FORGET, _GETATTR, _OPEN, _RELEASE, _FLUSH, _INIT = 1, 2, 3, 14, 18, 25, 26
_OPENDIR, _READDIR, _RELEASEDIR, _INTERRUPT, _BATCH_FORGET = 27, 28, 29, 36, 42
_ROOT, _FILE = 1, 2


def mount_shared(target: Path) -> bool:
    """Mount it in this process's own mounts; False where the machine does not allow it.

    The process that serves it dies with this one. A thread would not do: at the end the kernel
    waits for an answer about each open file, when no thread is left to give it.
    """
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError:
        return False
    try:
        options = f"fd={device},rootmode=40755,user_id={os.getuid()},group_id={os.getgid()}"
        mounted = mount("fuse", target, options)
        if mounted and os.fork() == 0:
            die_with_parent()
            _serve(device)
    finally:
        os.close(device)
    return mounted


def _serve(device: int) -> None:
    while True:
        request = os.read(device, 1 << 17)
        _, operation, unique, node = struct.unpack_from("=IIQQ", request)
        if operation in (_FORGET, _BATCH_FORGET, _INTERRUPT):
            continue
        try:
            error, body = 0, _answer(operation, node, request[40:])
        except OSError as refusal:
            error, body = -(refusal.errno or 0), b""
        os.write(device, struct.pack("=IiQ", 16 + len(body), error, unique) + body)


def _answer(operation: int, node: int, body: bytes) -> bytes:
    if operation == _INIT:
        return struct.pack("=IIIIHHIIHHI28x", 7, 31, 0, 0, 8, 8, 4096, 1, 1, 0, 0)
    if operation == _GETATTR:
        return struct.pack("=QII", 60, 0, 0) + _attributes(node)
    if operation == _LOOKUP and body.rstrip(b"\0") == NAME:
        return struct.pack("=QQQQII", _FILE, 0, 60, 60, 0, 0) + _attributes(_FILE)
    if operation in (_OPEN, _OPENDIR):
        return struct.pack("=QII", 0, 0, 0)
    if operation == _READDIR:
        entry = struct.pack("=QQII", _FILE, 1, len(NAME), stat.S_IFREG >> 12) + NAME
        return b"" if struct.unpack_from("=QQ", body)[1] else entry.ljust(-(-len(entry) // 8) * 8, b"\0")
    if operation in (_FLUSH, _RELEASE, _RELEASEDIR):
        return b""
    raise OSError(errno.ENOENT if operation == _LOOKUP else errno.ENOSYS, "")


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == _ROOT else stat.S_IFREG | 0o644
    times = (10**9,) * 3
    return struct.pack("=6Q10I", node, 0, 0, *times, 0, 0, 0, mode, 1, os.getuid(), os.getgid(), 0, 4096, 0)
