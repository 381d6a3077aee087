"""Runs a function in a process of its own, which may give up rights or take mounts and limits of its own."""

import ctypes
import os
import signal
import struct
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS = 0x20000
_NEW_USERS = 0x10000000
_PR_SET_PDEATHSIG = 1

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_LEASE = 28


def apart(
    function: Callable[Arguments, Answer], *arguments: Arguments.args, **keywords: Arguments.kwargs
) -> Answer:
    """Call a function of a module in a fresh process, and give what it returns or raises."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments, **keywords).result(timeout=60)


def own_namespaces() -> bool:
    """Give this process mounts and limits of its own; False where the machine does not allow it."""
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEW_USERS | _NEW_MOUNTS):
        return False
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return True


def mount(kind: str, target: Path, options: str = "") -> bool:
    """Mount a filesystem in this process's own mounts; it goes with the process."""
    return not _LIBC.mount(kind.encode(), os.fsencode(target), kind.encode(), 0, options.encode())


def unmount(target: Path) -> bool:
    """Undo it."""
    return not _LIBC.umount2(os.fsencode(target), 0)


def die_with_parent() -> None:
    """Have the kernel kill this process when the one that forked it ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def give_up(*capabilities: int) -> None:
    """Go on without these capabilities, as a container's root does. Nothing changes for one who has none."""
    header = struct.pack("Ii", 0x20080522, 0)
    held = ctypes.create_string_buffer(24)
    if _LIBC.capget(header, held):
        raise OSError(ctypes.get_errno(), "capget")
    effective, *rest = struct.unpack("6I", held.raw)
    for capability in capabilities:
        effective &= ~(1 << capability)
    if _LIBC.capset(header, struct.pack("6I", effective, *rest)):
        raise OSError(ctypes.get_errno(), "capset")
