"""A model of a power cut: which files can be left of a folder at each moment of a program that writes there.

It is stricter than any file system. A file has the bytes of its last fsync, and is empty if there was none. A name has
what it had at the last fsync of its folder. What TensorStore syncs by itself is not seen, and counts as not synced.

What was not synced may also have reached the disk. Three worlds are therefore made at each moment: no later name is
there, all are, or a random part of them. In each of them a file is empty unless its bytes were synced.
"""

import contextlib
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Tree = dict[str, Any]  # name -> bytes or Tree
_CALLS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}  # audit events; each is raised before the change


class Cut(NamedTuple):
    """What a power cut can leave.

    Attributes:
        moment: the call that follows.
        tree: what is left of the folder.
        note: what `note()` returned at that moment.
    """

    moment: str
    tree: Tree
    note: Any


class Recorder:
    """Watches a folder, and makes a list of all different cuts."""

    def __init__(self, root: Path, note: Callable[[], Any] = lambda: None):
        self.cuts: list[Cut] = []
        self._root, self._note = root, note
        self._bytes: dict[int, bytes] = {}  # inode -> synced
        self._names: dict[int, dict[str, int]] = {}  # inode of a folder -> name -> inode, synced
        self._held: dict[int, int] = {}  # inode -> a descriptor that keeps its number from being used again
        self._lock, self._rng, self._seen = threading.RLock(), random.Random(0), set()
        self._watching = False

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Records while the block runs; the content of the folder at its start is on the disk."""
        for folder, _, names in os.walk(self._root):
            self._synced_folder(folder)
            for name in names:
                self._synced_file(Path(folder, name))
        fsync, self._watching = os.fsync, True
        sys.addaudithook(self._audit)  # it stays for ever, and does nothing after the block

        def synced(descriptor: int) -> None:
            self._cut("fsync")
            fsync(descriptor)
            with self._lock:
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                if Path(path).is_relative_to(self._root):
                    self._synced_folder(path) if os.path.isdir(path) else self._synced_file(Path(path))
            self._cut("after fsync")

        os.fsync = synced
        try:
            yield
            self._cut("end")
        finally:
            os.fsync, self._watching = fsync, False
            for descriptor in self._held.values():
                os.close(descriptor)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._watching and event in _CALLS:
            self._cut(f"{event} {arguments[0]}")

    def _cut(self, moment: str) -> None:
        with self._lock:
            if not self._watching:
                return
            self._watching = False  # nothing below is a moment of its own
            try:
                note = self._note()
                for world in (lambda: False, lambda: True, lambda: self._rng.random() < 0.5):
                    tree = self._left(str(self._root), self._inode(str(self._root)), world)
                    if (key := repr((tree, note))) not in self._seen:
                        self._seen.add(key)
                        self.cuts.append(Cut(moment, tree, note))
            finally:
                self._watching = True

    def _left(self, path: str | None, inode: int, happened: Callable[[], bool]) -> Tree:
        """Returns what is left of a folder; `path` is None if it is there in name only."""
        synced = self._names.get(inode, {})
        now = self._list(path) if path is not None else synced
        left = dict(synced)
        for name, child in sorted(now.items()):
            if synced.get(name) != child and happened():  # made, or moved here from another name
                left = {other: inode for other, inode in left.items() if inode != child} | {name: child}
        for name, child in synced.items():
            if child not in now.values() and now.get(name) is None and left.get(name) == child and happened():
                del left[name]  # removed
        paths = {child: os.path.join(path or "", name) for name, child in now.items()} if path is not None else {}
        tree: Tree = {}
        for name, child in left.items():
            if child in self._names or (child in paths and os.path.isdir(paths[child])):
                tree[name] = self._left(paths.get(child), child, happened)
            else:
                tree[name] = self._bytes.get(child, b"")
        return tree

    def _list(self, path: str) -> dict[str, int]:
        found = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(path):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = self._inode(entry.path)
        return found

    def _inode(self, path: str) -> int:
        descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        inode = os.fstat(descriptor).st_ino
        if self._held.setdefault(inode, descriptor) != descriptor:
            os.close(descriptor)
        return inode

    def _synced_folder(self, path: str) -> None:
        self._names[self._inode(path)] = self._list(path)

    def _synced_file(self, path: Path) -> None:
        self._bytes[self._inode(str(path))] = path.read_bytes()


def write(tree: Tree, folder: Path) -> Path:
    """Makes a folder of what a cut has left, and returns its path."""
    folder.mkdir()
    for name, content in tree.items():
        if isinstance(content, dict):
            write(content, folder / name)
        else:
            (folder / name).write_bytes(content)
    return folder
