"""Disks that are full, that fail, and that lose their power: all of them real, and small."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from rigs.processes import Child, need, need_root, program, wait_until


def _run(*argv: str | Path) -> str:
    done = subprocess.run([program(str(argv[0])), *map(str, argv[1:])], capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))}: {done.stdout}{done.stderr}")
    return done.stdout.strip()


@contextlib.contextmanager
def mounted(path: Path, *options: str | Path) -> Iterator[Path]:
    """``mount OPTIONS path``, until the ``with`` is left."""
    need_root(f"mounts {' '.join(map(str, options))}")
    path.mkdir(exist_ok=True)
    _run("mount", *options, path)
    try:
        yield path
    finally:
        _run("umount", path)


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A tmpfs that is full soon."""
    with mounted(path, "-t", "tmpfs", "-o", f"size={size}", "tmpfs"):
        yield path


def free(path: Path) -> int:
    """Octets left on the file system."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def fill(path: Path, leave: int = 0) -> Path:
    """Somebody else's file takes the room, all but ``leave`` octets."""
    other = path / "somebody else's"
    with other.open("ab") as file:
        while (room := free(path) - leave) > 0:
            try:
                os.posix_fallocate(file.fileno(), file.tell(), min(room, 1 << 20))
            except OSError:
                break
            file.seek(0, os.SEEK_END)
    return other


@contextlib.contextmanager
def failing(child: Child, calls: str, error: str, *paths: Path) -> Iterator[None]:
    """System calls of a running process, on these files and no others, end with ``error``, until the ``with`` is
    left."""
    need("strace")
    need_root("traces a process that is not its child")
    directory = child.stdout.parent
    said = directory / "strace.err"
    said.unlink(missing_ok=True)
    only = [word for path in paths for word in ("-P", str(path))]
    argv = ["strace", "-f", "-q", "-e", f"trace={calls}", "-e", f"inject={calls}:error={error}", *only]
    with Child([*argv, "-o", str(directory / "strace.out"), "-p", str(child.pid)], directory, "strace") as tracer:
        threads = Path(f"/proc/{child.pid}/task")

        def attached() -> bool:
            states = [(task / "status").read_text() for task in threads.iterdir()]
            return all(f"TracerPid:\t{tracer.pid}" in state for state in states)

        wait_until(attached, 10, lambda: f"strace is attached: {tracer.output()}")
        try:
            yield
        finally:
            tracer.signal(15)
            tracer.wait(10)


class LoopDisk:
    """An ext4 of its own in a file, mounted at ``path``."""

    def __init__(self, image: Path, path: Path) -> None:
        self.image = image
        self.path = path

    def format(self, megabytes: int) -> Self:
        """Make the file."""
        need("mkfs.ext4")
        with self.image.open("wb") as file:
            file.truncate(megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", self.image)
        return self

    @contextlib.contextmanager
    def mounted(self, *options: str) -> Iterator[Path]:
        """Use it, until the ``with`` is left."""
        with mounted(self.path, "-o", ",".join(("loop", *options)), self.image):
            yield self.path

    def break_down(self) -> None:
        """As ext4 does when it finds an error: from this moment on it can only be read."""
        device = Path(_run("findmnt", "-no", "SOURCE", self.path)).name
        Path(f"/sys/fs/ext4/{device}/trigger_fs_error").write_text("1")

    def repair(self) -> None:
        """What an administrator does with it then (unmounted)."""
        subprocess.run([program("fsck.ext4"), "-y", str(self.image)], capture_output=True, check=False)

    def cut(self, copy: Path) -> None:
        """What the disk would hold had its power been cut at this moment: what the file system has handed to it."""
        _run("cp", "--sparse=always", self.image, copy)
