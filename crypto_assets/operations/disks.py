"""What the disk does to us, whichever library it was that met it."""

import errno
import sqlite3

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EIO}
_OF_SQLITE = ("disk", "readonly", "unable to open")


def of_disk(error: BaseException | None) -> str | None:
    """Return what to tell where the disk is behind an error, else None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        told = _told(error)
        if told is not None:
            return told
        error = error.__cause__ or error.__context__
    return None


def _told(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error) and any(word in str(error) for word in _OF_SQLITE):
        return (
            f"the disk is full or refuses to be written ({error}): make room and the home "
            "writable, and run the same again; what was committed is whole"
        )
    if not isinstance(error, OSError):
        return None
    where = f" {error.filename}" if error.filename else ""
    if error.errno in _FULL:
        return (
            f"the disk is full ({error.strerror}{where}): make room and run the same again; what "
            "was committed is whole"
        )
    if error.errno in _REFUSED:
        return f"can't use{where or ' a file'} ({error.strerror}): make it readable and writable"
    return None
