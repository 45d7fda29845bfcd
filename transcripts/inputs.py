"""What a path stands for: a file, the conversations in an archive, all files of a directory, the chitchat data set.

The order depends on names alone, not on the file system.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, cast

from transcripts.archive import MAGICS, MemberStream, check_member, open_archive
from transcripts.errors import TranscriptEmpty, TranscriptTooLarge, TranscriptUnreadable
from transcripts.formats.chitchat import dataset_path
from transcripts.source import Limits, Source, open_file

CHITCHAT = "chitchat"
# In the exports of Claude.ai and ChatGPT; everything else in them is about the account, or was attached.
_CONVERSATIONS = re.compile(r"(?:.*/)?conversations(?:[-_]\d{1,6})?\.json")


@dataclass(frozen=True, kw_only=True)
class Input:
    """One file or archive member that may hold conversations; `open` reads it from its beginning, as often as asked.

    `is_one_of_many` when it was not named, but found in a directory: it may be something else.
    """

    name: str
    open: Callable[[], AbstractContextManager[Source]]
    is_one_of_many: bool = False
    is_helper: bool = False


def inputs(path: Path | str, *, limits: Limits, on_ignored: Callable[[str], None]) -> Iterator[Input]:
    """Yield what is to be read, in order. `on_ignored` is told of members of an archive that hold no conversations.

    Raises:
        TranscriptUnreadable: for a symbolic link or a special file in a directory, or a broken archive.
        TranscriptEmpty: for a directory without files, or an archive without conversations.
    """
    if str(path) == CHITCHAT:
        yield Input(name=CHITCHAT, open=partial(_source, dataset_path(), limits))
        return
    root = Path(path)
    if root.is_symlink() or not root.is_dir():
        yield from _file(root, limits=limits, on_ignored=on_ignored)  # opening it says what is wrong with it
        return
    files = sorted(_walk(root))
    if not files:
        raise TranscriptEmpty(f"the directory {root} holds no files", field=str(root))
    for file in files:
        yield from _file(file, limits=limits, on_ignored=on_ignored, is_one_of_many=True)


def _file(
    path: Path, *, limits: Limits, on_ignored: Callable[[str], None], is_one_of_many: bool = False
) -> Iterator[Input]:
    with open_file(path, limits=limits) as (name, stream):
        is_archive = stream.read(4) in MAGICS
        members = _members(stream, name, limits, on_ignored, is_one_of_many=is_one_of_many) if is_archive else []
    if not is_archive:
        opened = partial(_source, path, limits)
        yield Input(name=name, open=opened, is_one_of_many=is_one_of_many)
    for member in members:
        yield Input(name=f"{name}!{member}", open=partial(_member, path, member, limits))


def _members(
    stream: BinaryIO, name: str, limits: Limits, on_ignored: Callable[[str], None], *, is_one_of_many: bool
) -> list[str]:
    with open_archive(stream, name=name) as archive:
        listed = [member for member in archive.infolist() if not member.filename.endswith("/")]
        names = Counter(member.filename for member in listed if _CONVERSATIONS.fullmatch(member.filename))
        wanted = sorted(names)
        if twice := [member for member in wanted if names[member] > 1]:
            shown = f"{name}!{_printable(twice[0])}"
            raise TranscriptUnreadable(
                f"{shown} is in the archive {names[twice[0]]} times: which one counts?", field=shown
            )
        if not wanted and is_one_of_many:
            on_ignored(name)  # an attachment, or a document of an office program
            return []
        for member in listed:
            shown = f"{name}!{_printable(member.filename)}"
            if member.filename in wanted:
                check_member(member, name=shown)
                if member.file_size > limits.max_file_bytes:
                    raise TranscriptTooLarge(
                        f"{shown} has {member.file_size} bytes; the limit is {limits.max_file_bytes} (max_file_bytes)",
                        field=shown,
                    )
            else:
                on_ignored(shown)
        if not wanted:
            raise TranscriptEmpty(f"the archive {name} holds no conversations.json", field=name)
        return wanted


@contextmanager
def _source(path: Path, limits: Limits) -> Iterator[Source]:
    with open_file(path, limits=limits) as (name, stream):
        yield Source(name=name, stream=stream, **vars(limits))


@contextmanager
def _member(path: Path, member: str, limits: Limits) -> Iterator[Source]:
    with open_file(path, limits=limits) as (name, stream), open_archive(stream, name=name) as archive:
        shown = f"{name}!{_printable(member)}"
        with MemberStream(archive, archive.getinfo(member), name=shown) as opened:
            yield Source(name=shown, stream=cast(BinaryIO, opened), **vars(limits))


def _printable(name: str) -> str:
    return name.encode(errors="backslashreplace").decode()


def _walk(root: Path) -> Iterator[Path]:
    def refuse(exc: OSError) -> None:
        raise TranscriptUnreadable(f"{exc.filename} cannot be read: {exc.strerror}", field=str(exc.filename)) from exc

    for directory, subdirectories, files in os.walk(root, onerror=refuse):
        subdirectories[:] = [name for name in subdirectories if not name.startswith(".")]
        for name in subdirectories:
            if (link := Path(directory, name)).is_symlink():
                raise TranscriptUnreadable(f"{link} is a symbolic link; name what it points to", field=str(link))
        yield from (Path(directory, name) for name in files if not name.startswith("."))
