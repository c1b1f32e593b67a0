"""The files in a tar, one after the other, held to the tar's being whole."""

from __future__ import annotations

import contextlib
import functools
import gzip
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Self

from ssl_tasks.errors import RequestError
from ssl_tasks.sources.walk import HIDDEN, count_ignored, is_hidden, is_utf8

GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Member:
    """A file in a tar."""

    name: str
    """Posix path without a leading `./` or `/`."""
    read: Callable[[], bytes]
    """Its bytes, until the next member is asked for."""

    @property
    def key(self) -> str:
        """The path up to the first dot of the file's name: equal for what belongs to one sample."""
        return self.name[: -len(self.extension) - 1] if self.extension else self.name

    @property
    def extension(self) -> str:
        """What follows that dot, in small letters: `jpg`, `mask.png`."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


class _BetweenError(tarfile.ReadError):
    """Damage behind a member that is whole itself."""


class _WholeInfo(tarfile.TarInfo):
    """Python's reader takes a broken header, and an end without the end mark, for the end: rows would be lost."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if isinstance(error, tarfile.EOFHeaderError):  # type: ignore[attr-defined]  # zeros: the end mark
                raise
            raise _BetweenError(str(error)) from error


def members(path: str, ignored: Counter[str] | None = None) -> Iterator[Member]:
    """The files in a tar or tar.gz, in order; hidden ones are passed over, and so is what is no file.

    Args:
        ignored: counts what is passed over.

    Raises:
        RequestError: the tar is damaged or cut, also where a member's bytes are read; the message names the last
            member before that.
    """
    ignored = Counter() if ignored is None else ignored
    place = _Place(path)
    with contextlib.ExitStack() as stack:
        with place.guard():
            stream = _unpacked(path, stack)
            tar = stack.enter_context(tarfile.open(fileobj=stream, mode="r:", tarinfo=_WholeInfo))
        while True:
            with place.guard():
                info = tar.next()
                if info is None:
                    _require_end(stream)
                    return
            place.last, place.current = place.current, f"member {info.name!r}"  # what comes next shows that it is whole
            tar.members = []  # type: ignore[attr-defined]  # it would keep a kilobyte of every member
            name = info.name.removeprefix("./").lstrip("/")
            if not is_utf8(name):
                raise RequestError(f"ingest.path: {path}: the member's name {name!r} is not UTF-8")
            if any(is_hidden(part) for part in name.split("/")):
                ignored[HIDDEN] += not info.isdir()
            elif info.isreg():
                yield Member(name, functools.partial(_read, tar, info, place))
            elif info.islnk() or info.issym():
                raise RequestError(
                    f"ingest.path: {path}: member {info.name!r} is a link to {info.linkname!r}, and a tar is read in "
                    "one pass; pack it with tar --dereference --hard-dereference"
                )
            elif not info.isdir():
                count_ignored(ignored, name)


@dataclass
class _Place:
    """Where a tar is being read."""

    path: str
    last: str = "its begin"
    current: str = "its begin"

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Turns what Python's readers raise on damaged files into a message."""
        try:
            yield
        except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
            last = self.current if isinstance(error, _BetweenError) else self.last
            raise RequestError(
                f"ingest.path: {self.path} is damaged or cut short after {last}: {error or type(error).__name__}"
            ) from error


def _read(tar: tarfile.TarFile, info: tarfile.TarInfo, place: _Place) -> bytes:
    with place.guard():
        stream = tar.extractfile(info)
        assert stream is not None, info.name
        return stream.read()


def _require_end(stream: IO[bytes]) -> None:
    """Read what is behind the end mark: only then a gzip checks its content, and another tar would be lost there."""
    while chunk := stream.read(1 << 20):
        if chunk.strip(b"\0"):
            raise _BetweenError("more stands behind its end mark; tars cannot be put one behind the other")


def _unpacked(path: str, stack: contextlib.ExitStack) -> IO[bytes]:
    stream: Any = stack.enter_context(open(path, "rb"))  # noqa: SIM115  # the stack closes it
    packed = stream.read(len(GZIP)) == GZIP
    stream.seek(0)
    if packed:
        stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
    unpacked: IO[bytes] = stream
    return unpacked
