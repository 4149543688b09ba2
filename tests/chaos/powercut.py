"""What a power cut leaves of files: changes as they were made, and what of them was on the disk.

A file's content is on the disk once it was fsynced, and a name once its folder was (POSIX promises
no more). Of all later changes any subset may be there: each name by itself, and of each content
none, the old one, a part, NULs, or all.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field

Content = tuple[bytes, int]  # and mode
NOTHING: Content = (b"", 0o600)


@dataclass(slots=True)
class Disk:
    """The files below a folder as they are changed. Paths are relative, inodes are numbers."""

    root: str
    durable: dict[str, int] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    synced: dict[int, Content] = field(default_factory=dict)
    latest: dict[int, Content] = field(default_factory=dict)
    pending: list[tuple[str, str, str, int]] = field(default_factory=list)

    def begin(self) -> None:
        """All that is there now is on the disk."""
        for path, inode, content in self._walk():
            self.durable[path], self.synced[inode] = inode, content
        self.folders = {
            os.path.relpath(os.path.join(above, name), self.root)
            for above, names, _ in os.walk(self.root)
            for name in names
        }

    def changed(self, what: str, path: str, to: str = "") -> None:
        """A name was changed: `create`, `rename`, `unlink`, `mkdir`."""
        inode = self._look(to or path) if what in ("create", "rename") else 0
        self.pending.append((what, self._relative(path), self._relative(to) if to else "", inode))

    def fsynced(self, path: str) -> None:
        """A file's content, or a folder's names, are on the disk."""
        if not os.path.isdir(path):
            inode = self._look(path)
            self.synced[inode] = self.latest[inode]
            return
        folder = self._relative(path)
        folder = "" if folder == "." else folder
        here = [row for row in self.pending if os.path.dirname(row[1]) == folder]
        for row in here:
            self.pending.remove(row)
            _apply(row, self.durable, self.folders)

    def end(self) -> None:
        """Note what each file holds at the cut. What other processes wrote is on the disk."""
        known = {*self.durable.values(), *(inode for *_, inode in self.pending)}
        for path, inode, content in self._walk():
            self.latest[inode] = content
            if inode not in known:
                self.durable[path], self.synced[inode] = inode, content

    def restore(self, chance: random.Random) -> None:
        """Have the folder hold what one power cut could have left."""
        names, folders = dict(self.durable), set(self.folders)
        for row in self.pending:
            if chance.random() < 0.5:
                _apply(row, names, folders)
        for name in os.listdir(self.root):
            whole = os.path.join(self.root, name)
            shutil.rmtree(whole) if os.path.isdir(whole) else os.unlink(whole)
        for folder in sorted(folders):
            if not (above := os.path.dirname(folder)) or above in folders:
                os.mkdir(os.path.join(self.root, folder), 0o700)
        for path, inode in names.items():
            if os.path.dirname(path) and os.path.dirname(path) not in folders:
                continue
            data, mode = self._left(inode, chance)
            with open(os.path.join(self.root, path), "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)

    def _left(self, inode: int, chance: random.Random) -> Content:
        old = self.synced.get(inode, NOTHING)
        new = self.latest.get(inode, old)
        if inode in self.synced and old[0] == new[0]:
            return new
        part = new[0][: chance.randrange(len(new[0]) + 1)]
        return chance.choice([old, (part, new[1]), (bytes(len(new[0])), new[1]), new])

    def _look(self, path: str) -> int:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            self.latest[found.st_ino] = (file.read(), found.st_mode & 0o7777)
        return found.st_ino

    def _relative(self, path: str) -> str:
        return os.path.relpath(path, self.root)

    def _walk(self) -> list[tuple[str, int, Content]]:
        found = []
        for above, _, names in os.walk(self.root):
            for name in names:
                path = os.path.join(above, name)
                with open(path, "rb") as file:
                    about = os.fstat(file.fileno())
                    content = (file.read(), about.st_mode & 0o7777)
                found.append((self._relative(path), about.st_ino, content))
        return found


def _apply(row: tuple[str, str, str, int], names: dict[str, int], folders: set[str]) -> None:
    what, path, to, inode = row
    if what == "mkdir":
        folders.add(path)
        return
    if what == "rmdir":
        folders.discard(path)
        return
    if what in ("unlink", "rename"):
        names.pop(path, None)
    if what in ("create", "rename"):
        names[to or path] = inode
