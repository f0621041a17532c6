"""Writing files completely or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # On Windows, open files cannot be removed.
    fcntl = None

NEW_FILE_MODE = 0o666


def replace_file(path: Path, content: bytes | memoryview) -> None:
    """Replace a file in one step, when the new one is complete.

    The content is written to a file without name, if the system supports this, or to a part file in
    the same folder. Part files of killed processes are removed.

    Parameters
    ----------
    path : Path
        File to write; links are followed. The mode of an existing file is kept.
    content : bytes-like
        Complete content of the file.

    Raises
    ------
    OSError
        If the file cannot be written. An existing file remains unchanged, and no other file is
        left.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise OSError(f"{path} is not a regular file; give the name of a file to write.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{path} was not written: the folder {target.parent} does not exist."
        )
    try:
        _remove_left_parts(target)
        _write_and_replace(target, content)
    except OSError as error:
        state = "is as it was" if target.exists() else "was not written"
        raise OSError(f"{path} {state}: {error}.") from error


def write_all(file: BinaryIO, content: bytes | memoryview) -> None:
    """Write the complete content, also to a file that accepts only a part per call."""
    content = memoryview(content)
    while content:
        n_written = file.write(content)
        if n_written == 0:
            raise OSError("the file takes no more bytes")
        # Files that return None have written everything.
        content = content[len(content) if n_written is None else n_written :]


def _write_and_replace(target: Path, content: bytes | memoryview) -> None:
    # In the folder of the target, and hence on the same file system, where replacing is atomic.
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    mode = target.stat().st_mode & 0o7777 if target.exists() else None
    with contextlib.ExitStack() as stack:
        file = _open_without_name(target.parent, mode)
        is_named = file is None
        if file is None:
            _tidy_up(stack, part)
            file = _open_part(part, mode)
        stack.enter_context(file)
        _keep_owner(file, target, mode)
        write_all(file, content)
        os.fsync(file.fileno())
        if not is_named:
            _tidy_up(stack, part)
            _give_name(file, part)
        if fcntl is None:
            # Windows does not move open files.
            file.close()
        os.replace(part, target)


def _tidy_up(stack: contextlib.ExitStack, part: Path) -> None:
    """Remove a part file at the end, also if the process is terminated meanwhile."""
    stack.enter_context(_sigterm_waits())
    stack.callback(lambda: part.unlink(missing_ok=True))


@contextlib.contextmanager
def _sigterm_waits() -> Iterator[None]:
    """Delay the termination by SIGTERM until the end of the block."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    received: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for number in received:
            signal.raise_signal(number)


def _open_without_name(folder: Path, mode: int | None) -> BinaryIO | None:
    """Open a file that disappears with the process, or return None if not supported."""
    if fcntl is None or not hasattr(os, "O_TMPFILE") or not os.path.isdir("/proc/self/fd"):
        return None
    try:
        number = os.open(folder, os.O_TMPFILE | os.O_WRONLY, _first_mode(mode))
    except OSError:
        # Not supported by all file systems; other errors will also occur with a named file.
        return None
    # A lock distinguishes part files of running processes from abandoned ones.
    fcntl.flock(number, fcntl.LOCK_EX)
    return os.fdopen(number, "wb", buffering=0)


def _give_name(file: BinaryIO, part: Path) -> None:
    folder = os.open(part.parent, os.O_RDONLY)
    try:
        # With dir_fd, the link to the open file is followed.
        os.link(f"/proc/self/fd/{file.fileno()}", part, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _open_part(part: Path, mode: int | None) -> BinaryIO:
    while True:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(part, flags, _first_mode(mode)), "wb", buffering=0)
        if fcntl is None:
            return file
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        # Another process removed it before it was locked.
        file.close()


def _first_mode(mode: int | None) -> int:
    """Return the mode of a new file, with at most the rights of the existing one."""
    return NEW_FILE_MODE if mode is None else mode & 0o600


def _keep_owner(file: BinaryIO, target: Path, mode: int | None) -> None:
    """Set the owner and the mode of the existing file, as far as permitted."""
    if mode is None or fcntl is None:
        return
    earlier = target.stat()
    with contextlib.suppress(OSError):
        os.fchown(file.fileno(), earlier.st_uid, earlier.st_gid)
    os.fchmod(file.fileno(), mode)


def _remove_left_parts(target: Path) -> None:
    """Remove part files of killed processes; those of running processes are locked."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{8}}\.part")
    with contextlib.suppress(OSError), os.scandir(target.parent) as entries:
        for entry in entries:
            if name.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with contextlib.suppress(OSError):
                    _remove_unless_locked(entry.path)


def _remove_unless_locked(path: str) -> None:
    if fcntl is None:
        os.unlink(path)
        return
    number = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    finally:
        os.close(number)
