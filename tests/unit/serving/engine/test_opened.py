"""Memory that holds what was verified, that nobody can change, and that cannot be taken for another's."""

from __future__ import annotations

import mmap
import os
from dataclasses import replace

import pytest

from serving.engine.opened import OpenedAdapter, OpenedFiles
from serving.errors import AdapterDamaged
from tests.support.opened import opened_files

FILES = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"weights"}


def content(files: OpenedFiles, name: str) -> bytes:
    descriptor = files.open()
    try:
        begin, size_bytes = files.offset(name)
        return os.pread(descriptor, size_bytes, begin)
    finally:
        os.close(descriptor)


def test_another_process_of_the_account_reads_the_files() -> None:
    with opened_files(FILES) as opened:
        told = OpenedFiles.of(opened.files.values())
        assert {name: content(told, name) for name in FILES} == FILES


def test_nobody_can_change_what_was_verified() -> None:
    with opened_files(FILES) as opened:
        descriptor = os.open(opened.files.path, os.O_RDWR)
        for change in (
            lambda: os.pwrite(descriptor, b"x", 0),
            lambda: os.ftruncate(descriptor, 1),
            lambda: os.ftruncate(descriptor, 1000),
            lambda: mmap.mmap(descriptor, 4),
        ):
            with pytest.raises(PermissionError):
                change()
        os.close(descriptor)
        with pytest.raises(ValueError, match="frozen"):
            _ = opened.plain


def test_one_adapters_memory_is_never_taken_for_anothers() -> None:
    with opened_files(FILES) as mine, opened_files(FILES) as yours:
        assert mine.files.mark != yours.files.mark
        with pytest.raises(AdapterDamaged, match="not what was opened"):
            replace(mine.files, path=yours.files.path).open()


def test_it_is_gone_once_it_is_let_go() -> None:
    opened = opened_files(FILES)
    files = opened.files
    opened.close()
    opened.close()
    with pytest.raises(FileNotFoundError):
        files.open()
    with pytest.raises(ValueError, match="let go"):
        _ = opened.plain


def test_what_is_let_go_before_it_is_whole_is_empty_for_whoever_still_looks_at_it() -> None:
    opened = OpenedAdapter(10_000)
    view = opened.plain
    view[:] = b"p" * 10_000
    opened.close()
    assert bytes(view) == bytes(10_000)


def test_it_is_whole_or_not_to_be_had() -> None:
    sizes = tuple((name, len(data)) for name, data in FILES.items())
    with OpenedAdapter(5) as opened:
        opened.plain[:] = b"{}wei"
        with pytest.raises(ValueError, match="not whole yet"):
            _ = opened.files
        with pytest.raises(ValueError, match="other sizes"):
            opened.freeze(sizes)
    with pytest.raises(ValueError, match="let go"):
        opened.freeze((("adapter_config.json", 5),))


def test_it_is_not_frozen_while_somebody_could_write_to_it() -> None:
    with OpenedAdapter(4) as opened:
        view = opened.plain
        with pytest.raises(BufferError):
            opened.freeze((("adapter_config.json", 4),))
        with pytest.raises(ValueError, match="not whole yet"):
            _ = opened.files
        view.release()


def test_a_machine_without_room_for_it_refuses_and_keeps_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r".+"):
        OpenedAdapter(1 << 62)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_forgotten_one_lets_its_memory_go() -> None:
    opened = opened_files(FILES)
    files = opened.files
    del opened
    with pytest.raises(FileNotFoundError):
        files.open()
