"""Files that grow at their end only, written by one run at a time, and whole to the last record after a kill."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps two runs apart
    fcntl = None  # type: ignore[assignment]


class AppendOnlyFile:
    """A file that is locked while it is open, and that is written to at its end only.

    What [`append`] was given is on the disk when it returns. A kill in the middle of it leaves the beginning of it,
    which whoever reads the format recognises and takes off by [`cut`].

    Args:
        path (`Path`):
            The file; it is made, for its owner alone, if there is none.

    Attributes:
        size (`int`): In bytes.

    Raises:
        `OSError`: it cannot be written to, or another run does; its `strerror` says why.
    """

    def __init__(self, path: Path):
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
        self._descriptor = os.open(path, flags, 0o600)
        try:
            status = os.fstat(self._descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "it is no ordinary file")
            self._lock()
            self.size = os.fstat(self._descriptor).st_size
            if self.size == 0:
                _sync_folder(path.parent)
        except BaseException:
            self.close()
            raise

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another run is writing to it") from error

    def reader(self) -> BinaryIO:
        """The file from its beginning, to read; closing it leaves this file open and locked."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        return os.fdopen(os.dup(self._descriptor), "rb")

    def append(self, content: bytes) -> None:
        """Writes to the end: all of it, or nothing.

        Raises:
            `OSError`: it cannot be written, for instance for want of room.
        """
        left = memoryview(content)
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
            os.fsync(self._descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise
        self.size += len(content)

    def cut(self, size: int) -> None:
        """Takes off what a kill has left at the end."""
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        self.size = size

    def close(self) -> None:
        os.close(self._descriptor)


def _sync_folder(folder: Path) -> None:
    """Brings the name of a new file to the disk, where folders can be opened."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
