"""Folders on any file system that fsspec knows. What lies in them is others' concern."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crypto_assets.warehouse.errors import WarehouseError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_USER = re.compile(r"//[^/@\s]*@")


@dataclass(frozen=True)
class Place:
    """A folder or file on any file system that fsspec knows."""

    fs: "AbstractFileSystem"
    path: str

    @classmethod
    def of(cls, url: str | Path) -> "Place":
        """Return the place of a URL or path. Raises `WarehouseError`."""
        # Imported here: only backups need it.
        import fsspec

        try:
            fs, path = fsspec.core.url_to_fs(str(url))
        except (ImportError, ValueError) as error:
            raise WarehouseError(
                masked(
                    f"can't use {url} for backups ({error}): name a folder, or install what its "
                    "file system needs"
                )
            ) from None
        return cls(fs, path)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return Path(self.path).name

    def __truediv__(self, name: str) -> "Place":
        return Place(self.fs, f"{self.path.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return masked(str(self.fs.unstrip_protocol(self.path)).removeprefix("file://"))

    def exists(self) -> bool:
        """Tell whether anything is there."""
        return bool(self.fs.exists(self.path))

    def entries(self) -> "list[Place]":
        """Return what lies in a folder, by name; nothing where there is none."""
        if not self.exists():
            return []
        names = sorted(Path(name).name for name in self.fs.ls(self.path, detail=False))
        return [self / name for name in names]


def masked(text: str) -> str:
    """Return text without the user and password of the URLs in it."""
    return _USER.sub("//***@", text)
