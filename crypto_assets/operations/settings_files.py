"""The settings file and `.env` as files: read, changed by name, written whole or not at all."""

import io
import os
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from crypto_assets.operations.errors import OperationError
from crypto_assets.settings import DOTENV_NAME

_PLAIN = re.compile(r"[\w./:@%+,~?&=-]+", re.ASCII)


@dataclass(frozen=True)
class FileDraft:
    """A file as it is and as it is to be."""

    path: Path
    before: str | None
    after: str
    is_secret: bool

    @property
    def is_changed(self) -> bool:
        """Whether there is anything to write."""
        return self.before != self.after and bool(self.before or self.after)


def read(path: Path) -> str | None:
    """Return the text of a file, if it is there. Raises `OperationError`."""
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except UnicodeDecodeError:
        raise OperationError(f"{path} is not text in UTF-8: correct or remove it") from None
    except OSError as error:
        raise OperationError(
            f"can't read {path} ({error.strerror}): make it a readable file"
        ) from None


def write(files: Sequence[FileDraft]) -> None:
    """Write all files, in this order, or none. Raises `OperationError`."""
    with _staged(files) as staged:
        begun: list[FileDraft] = []
        try:
            for file, beside in staged:
                begun.append(file)
                beside.replace(file.path.resolve())
        except BaseException:
            for file in begun:
                _put_back(file)
            raise


@contextmanager
def _staged(files: Sequence[FileDraft]) -> Iterator[list[tuple[FileDraft, Path]]]:
    """Yield what changes and a finished file beside each, which is gone afterwards."""
    staged: list[tuple[FileDraft, Path]] = []
    try:
        for file in files:
            if file.is_changed:
                target = file.path.resolve()
                beside = target.with_name(f".{target.name}.{os.getpid()}.new")
                staged.append((file, beside))
                _create(beside, file)
        yield staged
    except OSError as error:
        raise OperationError(
            f"can't write the settings to {files[0].path.parent} ({error.strerror}): make it "
            "writable, or run this in another folder"
        ) from None
    finally:
        for _, beside in staged:
            beside.unlink(missing_ok=True)


def _create(path: Path, file: FileDraft) -> None:
    mode = 0o600 if file.is_secret else 0o666
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(file.after)
        opened.flush()
        os.fsync(descriptor)
    if file.before is not None and not file.is_secret:
        path.chmod(file.path.stat().st_mode & 0o777)


def _put_back(file: FileDraft) -> None:
    with suppress(OSError):
        if file.before is None:
            file.path.unlink(missing_ok=True)
        else:
            file.path.write_text(file.before, encoding="utf-8")


def is_kept_from_git(folder: Path) -> bool:
    """Tell whether git would leave `.env` alone: there is no repository, or it is ignored."""
    try:
        done = subprocess.run(
            ["git", "check-ignore", "-q", DOTENV_NAME],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    # 1 is not ignored, 128 is no repository.
    return done.returncode != 1


def with_names(before: str, values: Mapping[str, str]) -> str:
    """Return the text of `.env` with some names set and every other line as it was.

    Raises `OperationError` for a value that can't be said there.
    """
    text, left = "", dict(values)
    for binding in parse_stream(io.StringIO(before)):
        string = binding.original.string
        if binding.key is not None and binding.key in values:
            value = left.pop(binding.key, None)
            blank = string[: len(string) - len(string.lstrip())]
            string = blank if value is None else f"{blank}{_line(binding.key, value)}"
        text += string
    if left and text and not text.endswith("\n"):
        text += "\n"
    text += "".join(_line(name, value) for name, value in left.items())
    said = names_of(text)
    unsaid = [name for name, value in values.items() if said.get(name) != value]
    if unsaid:
        raise OperationError(
            f"{', '.join(unsaid)} holds characters that {DOTENV_NAME} can't: check it, or set it "
            "in the environment instead"
        )
    return text


def _line(name: str, value: str) -> str:
    if not _PLAIN.fullmatch(value):
        value = "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    return f"{name}={value}\n"


def names_of(dotenv: str) -> dict[str, str | None]:
    """Return what the text of `.env` says."""
    return dict(dotenv_values(stream=io.StringIO(dotenv)))
