"""What a manager gives its workers to do, and the one answer that is the same for all managers."""

import os
from dataclasses import dataclass

from common.entry import Batch
from common.files import Algorithm, BufferedFile, Checksum, checksum


@dataclass(frozen=True, slots=True)
class Work:
    """Take a batch through its step. The answer is a `Report`."""

    batch: Batch
    orders: object
    """What a manager tells its workers beside: how to send, say."""


@dataclass(frozen=True, slots=True)
class Identify:
    """Hash files whose path is known with other content. The answer is `Identified`."""

    files: tuple[BufferedFile, ...]
    algorithm: Algorithm


@dataclass(frozen=True, slots=True)
class Chore:
    """Something that no file asks for; what it is and what is answered is the manager's own affair."""

    what: object


Task = Work | Identify | Chore


@dataclass(frozen=True, slots=True)
class Identified:
    """Files that could be hashed; each with the fence of the bytes that were read."""

    files: tuple[tuple[BufferedFile, Checksum], ...]


def identify(root: bytes, task: Identify) -> Identified:
    """Hash files below `root`. One that has changed since it was seen is left out: it is found again."""
    files = []
    for file in task.files:
        try:
            digest, fence = checksum(os.path.join(root, file.path), task.algorithm)
        except OSError:
            continue
        if fence == file.fence:
            files.append((file, digest))
    return Identified(tuple(files))
