"""The files of a node, guarded against other users of its machine."""

import errno
import os
import stat
from pathlib import Path
from typing import IO, TypeAlias

FilePath: TypeAlias = str | os.PathLike[str]

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


def open_log(path: FilePath) -> IO[bytes]:
    """Open a log for appending; a new one is for its owner alone. Raises OSError.

    A symbolic link is refused, and a file that others may replace: another user, who may write to
    the directory, could direct the log into a file of the node's user or into his own.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | _NO_FOLLOW, 0o600)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        text = "a log follows no symbolic link; name the file itself"
        raise OSError(error.errno, text, os.fspath(path)) from None
    if directory := find_open_directory(path):
        os.close(descriptor)
        text = f"others may replace it, as anybody may write to {directory}"
        raise PermissionError(errno.EPERM, text, os.fspath(path))
    return open(descriptor, "ab", buffering=0)


def find_open_directory(path: FilePath) -> Path | None:
    """The directory in which any user could put another file in place of `path`, None if none.

    This is a directory above the file, or above the file that a symbolic link leads to, that all
    users may write to. One with the sticky bit, such as /tmp, is none as long as its entry on the
    way to the file belongs to this process's user or to root: others cannot rename or remove such
    an entry. Groups are trusted: on many systems each user has a group of his own. A path that does
    not exist, or that this process may not examine, has no such directory.
    """
    if os.name != "posix":  # only there do the mode bits decide
        return None
    try:
        for spelled in (os.path.abspath(path), os.path.realpath(path)):
            entry = Path(spelled)
            for directory in entry.parents:
                if _is_open(directory, entry):
                    return directory
                entry = directory
    except OSError:
        pass
    return None


def _is_open(directory: Path, entry: Path) -> bool:
    mode = directory.stat().st_mode
    is_sticky = mode & stat.S_ISVTX and entry.lstat().st_uid in (os.geteuid(), 0)
    return bool(mode & stat.S_IWOTH) and not is_sticky


def others_may_read(status: os.stat_result) -> bool:
    """Whether a file is open to others than its owner, or than the group to which root gave it.

    Secrets of containers, and of services that run as a user of their own, belong to root and are
    readable by that group.
    """
    closed = 0o037 if status.st_uid == 0 else 0o077
    return os.name == "posix" and bool(status.st_mode & closed)
