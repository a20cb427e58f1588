# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the kernel asks of a file system, and how the files answer it."""

import errno
import functools
import os
import stat
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeVar

import pyfuse3
from pyfuse3 import EntryAttributes, FileInfo, FUSEError, RequestContext, SetattrFields, StatvfsData

from flavourd import logs
from flavourd.attributes.files import Files
from flavourd.attributes.inodes import Inodes
from flavourd.attributes.tree import FLAVOUR, ROOT, Node
from flavourd.attributes.writers import Writer
from flavourd.errors import Code, FlavourError
from flavourd.policy.attributes import FileAccess

T = TypeVar("T")

_SIZE = 4096  # as sysfs says of all its files
_MOST_OPEN = 1000  # for writing, by one user who is not root: each takes a descriptor, and there are 16384
_DIRECTORY = stat.S_IFDIR | 0o755
# They quote the kernel's log and name other people's processes: for those who may ask flavourd itself.
_LOOK = stat.S_IFREG | 0o440


def _answers(handler: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """pyfuse3 lets who asked wait for ever if a handler raises anything but FUSEError."""

    @functools.wraps(handler)
    async def answered(*arguments: Any) -> T:
        try:
            return await handler(*arguments)
        except FUSEError:
            raise
        except OSError as error:
            raise FUSEError(error.errno or errno.EIO) from error
        except Exception as error:
            story = "".join(traceback.format_exception(error))
            logs.tell_trouble(FlavourError(Code.INTERNAL, story, "this is a bug in flavourd"))
            raise FUSEError(errno.EIO) from error

    return answered


def _refuses(*_: object) -> Any:
    """Nothing is made, renamed or removed here."""
    raise FUSEError(errno.EPERM)


@dataclass
class _Handle:
    """An open file. text: what it said when it was last read from its beginning. writer: if it is open for writing."""

    node: Node
    writer: Writer | None
    text: bytes | None = None


class Operations(pyfuse3.Operations):  # type: ignore[misc]  # it has no types where pyfuse3 is not installed
    """access: whose the files of a device are, may be changed at any time."""

    supports_dot_lookup = False

    def __init__(self, files: Files, access: FileAccess) -> None:
        super().__init__()
        self.access = access
        self.inodes = Inodes()
        self._files = files
        self._handles: dict[int, _Handle] = {}
        self._directories: dict[int, Node] = {}
        self._listing: tuple[Node, list[Node]] = (ROOT, [])  # the last one: who opens many directories fills no memory
        self._writing: Counter[int] = Counter()  # how many handles a user has
        self._numbers = count(1)
        self._since = time.time_ns()

    # --- what there is

    @_answers
    async def lookup(self, parent_inode: int, name: bytes, ctx: RequestContext) -> EntryAttributes:
        node = self._files.child(self.inodes[parent_inode], os.fsdecode(name))
        return self._attributes(node, self.inodes.looked_up(node))

    @_answers
    async def forget(self, inode_list: Sequence[tuple[int, int]]) -> None:
        for number, times in inode_list:
            self.inodes.forget(number, times)

    @_answers
    async def getattr(self, inode: int, ctx: RequestContext) -> EntryAttributes:
        node = self.inodes[inode]
        return self._attributes(node, node.number)

    @_answers
    async def setattr(
        self, inode: int, attr: EntryAttributes, fields: SetattrFields, fh: int | None, ctx: RequestContext
    ) -> EntryAttributes:
        """A file may be truncated, as `>` does before it writes, and touched; neither does anything."""
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise FUSEError(errno.EPERM)
        node = self.inodes[inode]
        return self._attributes(node, node.number)

    @_answers
    async def opendir(self, inode: int, ctx: RequestContext) -> int:
        number = next(self._numbers)
        self._directories[number] = self.inodes[inode]
        return number

    @_answers
    async def readdir(self, fh: int, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        # A place is the number of the node before it: nothing that stays is told twice or left out.
        for node in self._children(self._directories[fh], anew=start_id == 0):
            if node.number <= start_id:
                continue
            attributes = self._attributes(node, node.number)
            if not pyfuse3.readdir_reply(token, os.fsencode(node.path[-1]), attributes, node.number):
                return
            self.inodes.listed(node)

    def _children(self, directory: Node, anew: bool) -> list[Node]:
        if anew or self._listing[0] != directory:
            self._listing = directory, self._files.children(directory)
        return self._listing[1]

    @_answers
    async def releasedir(self, fh: int) -> None:
        del self._directories[fh]

    @_answers
    async def statfs(self, ctx: RequestContext) -> StatvfsData:
        data = StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks = data.f_bfree = data.f_bavail = 0
        data.f_files = data.f_ffree = data.f_favail = 0
        data.f_namemax = 255
        return data

    # --- files

    @_answers
    async def open(self, inode: int, flags: int, ctx: RequestContext) -> FileInfo:
        node = self.inodes[inode]
        self._files.check(node)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if writes and node.file != FLAVOUR:
            raise FUSEError(errno.EACCES)  # as sysfs answers root, whom no mode holds back
        if writes and ctx.uid and self._writing[ctx.uid] >= _MOST_OPEN:
            raise FUSEError(errno.EMFILE)
        number = next(self._numbers)
        self._handles[number] = _Handle(node, Writer(ctx.uid, ctx.pid) if writes else None)
        self._writing[ctx.uid] += writes
        return FileInfo(fh=number, direct_io=True, keep_cache=False)

    @_answers
    async def read(self, fh: int, off: int, size: int) -> bytes:
        handle = self._handles[fh]
        if off == 0 or handle.text is None:
            handle.text = (await self._files.read(handle.node)).encode(errors="surrogateescape")
        return handle.text[off : off + size]

    @_answers
    async def write(self, fh: int, off: int, buf: bytes) -> int:
        """Wherever in the file: what is written is the request."""
        handle = self._handles[fh]
        assert handle.writer
        await self._files.write(handle.node, buf, handle.writer)
        return len(buf)

    @_answers
    async def release(self, fh: int) -> None:
        if writer := self._handles.pop(fh).writer:
            writer.close()
            self._writing[writer.uid] -= 1

    # --- what is not to be had

    create = mknod = mkdir = symlink = link = unlink = rmdir = rename = _answers(_refuses)

    # ---

    def _attributes(self, node: Node, number: int) -> EntryAttributes:
        attributes = EntryAttributes()
        attributes.st_ino = number
        attributes.generation = 0
        attributes.entry_timeout = attributes.attr_timeout = 0
        attributes.st_uid = attributes.st_gid = 0
        attributes.st_mode, attributes.st_nlink, attributes.st_size = _DIRECTORY, 2, 0
        if node.device and node.file:
            owner = self.access.of(node.device)
            attributes.st_mode = stat.S_IFREG | owner.mode if node.file == FLAVOUR else _LOOK
            attributes.st_uid, attributes.st_gid = owner.uid, owner.gid
            attributes.st_nlink, attributes.st_size = 1, _SIZE
        attributes.st_blksize, attributes.st_blocks = 4096, 0
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = self._since
        return attributes
