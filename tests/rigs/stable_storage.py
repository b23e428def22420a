"""What would be left after a power cut: only what had been flushed, and only under names that had been."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import apsw

_fsync = os.fsync


def _nothing(path: str) -> None:
    pass


class Watch(apsw.VFS):
    """Makes SQLite tell when it writes and flushes a file, by calling ``on_write`` and ``on_sync`` just before."""

    def __init__(self) -> None:
        self.on_write: Callable[[str], None] = _nothing
        self.on_sync: Callable[[str], None] = _nothing
        self.synced: Callable[[str], None] = _nothing
        self.deleted: Callable[[str], None] = _nothing
        super().__init__("watch", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        self.deleted(filename)


class _File(apsw.VFSFile):
    def __init__(self, watch: Watch, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._watch = watch
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        super().__init__("unix", name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._watch.on_write(self._path)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        self._watch.on_sync(self._path)
        super().xSync(flags)
        self._watch.synced(self._path)


class StableStorage:
    """Follows every flush under ``root``. ``lies``: what is only said to be flushed: file, directory or database."""

    def __init__(self, root: Path, lies: str = "") -> None:
        self._root = root
        self._lies = lies
        self._files: dict[Path, bytes] = {}
        self._names: dict[Path, set[str]] = {}
        self._watch = Watch()
        self._watch.synced = self._database_synced
        self._watch.deleted = self._deleted
        os.fsync = self._synced  # type: ignore[assignment]

    def _database_synced(self, path: str) -> None:
        # SQLite flushes the directory of a new file itself, out of our sight.
        if self._lies != "database" or not path.endswith("-wal"):
            self._files[Path(path)] = Path(path).read_bytes()

    def _deleted(self, path: str) -> None:
        self._files.pop(Path(path), None)

    def _synced(self, descriptor: int) -> None:
        _fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            if self._lies != "directory":
                self._names[path] = set(os.listdir(path))
        elif self._lies != "file":
            self._files[path] = path.read_bytes()
        else:
            self._files[path] = b""

    def power_cut(self, image: Path) -> None:
        """Write what is left to ``image``."""
        image.mkdir()
        for path, content in self._files.items():
            if path.parent == self._root or path.name in self._names.get(path.parent, ()):
                copy = image / path.relative_to(self._root)
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(content)
