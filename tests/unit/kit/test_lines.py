"""Lines end where the sender ended them, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.lines import async_lines, lines

# Where Python ends a line as well, and JSON's strings do not.
ODD = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e"


def test_a_text_in_a_line_cannot_end_it() -> None:
    forged = f'{{"why": "a{ODD}data: [DONE]{ODD}"}}'
    assert list(lines([f"data: {forged}\r\n\n".encode()])) == [f"data: {forged}", ""]


@given(st.text(alphabet="ab\n\r☃" + ODD), st.integers(1, 5))
def test_pieces_make_no_difference(text: str, size: int) -> None:
    whole = text.encode()
    wanted = [line.removesuffix("\r") for line in text.split("\n")]
    if not wanted[-1] and not text.endswith("\r"):
        wanted.pop()
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    assert list(lines(pieces)) == wanted


@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"a"], [b"a\n", b"\nb"], [b"\xe2", b"\x80\xa8\n"], [b"a\r", b"\nb\r\n"]]
)
async def test_the_asynchronous_form_says_the_same(pieces: list[bytes]) -> None:
    async def come() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert [line async for line in async_lines(come())] == list(lines(pieces))
