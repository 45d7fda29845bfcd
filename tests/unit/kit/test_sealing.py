"""A seal opens to what was sealed, whole, or not at all."""

from __future__ import annotations

import hashlib
import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import SealBroken
from kit.sealing import (
    HEADER_BYTES,
    KEY_BYTES,
    Fill,
    Opener,
    Sealer,
    derive_key,
    new_key,
    open_stream,
    seal,
    seal_stream,
    sealed_size,
    unseal,
)

KEY, OTHER_KEY = bytes(range(32)), bytes(range(1, 33))
CONTEXT = b"v00000000000000000000000000000000"
CHUNK = 1024
SEALED_CHUNK = CHUNK + 16
SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1, 3 * CHUNK + 500]


def plain_of(size: int) -> bytes:
    return hashlib.shake_128(b"plain").digest(size)


def sealed_of(plain: bytes, *, key: bytes = KEY, context: bytes = CONTEXT) -> bytes:
    sealer = Sealer(key, context=context, chunk_bytes=CHUNK)
    return sealer.update(plain) + sealer.finish()


def chunks_of(sealed: bytes) -> tuple[bytes, list[bytes]]:
    body = sealed[HEADER_BYTES:]
    return sealed[:HEADER_BYTES], [body[at : at + SEALED_CHUNK] for at in range(0, len(body), SEALED_CHUNK)]


def assert_refused(sealed: bytes, plain: bytes, *, key: bytes = KEY, context: bytes = CONTEXT) -> None:
    """Refused, and nothing was let out before that is not a true beginning, chunk by whole chunk."""
    opener, out = Opener(key, context=context), b""
    try:
        for at in range(0, len(sealed), 700):
            out += opener.update(sealed[at : at + 700])
        opener.finish()
    except SealBroken:
        assert plain.startswith(out)
        assert len(out) % CHUNK == 0
    else:
        pytest.fail("damaged content was opened")


@pytest.mark.parametrize("size", SIZES)
def test_what_is_opened_is_what_was_sealed(size: int) -> None:
    plain = plain_of(size)
    sealed = sealed_of(plain)
    assert len(sealed) == sealed_size(size, chunk_bytes=CHUNK)
    assert unseal(KEY, sealed, context=CONTEXT) == plain
    assert unseal(KEY, seal(KEY, plain, context=CONTEXT), context=CONTEXT) == plain


@given(plain=st.binary(max_size=5 * CHUNK), data=st.data())
@settings(max_examples=150, deadline=None)
def test_pieces_of_any_size_make_no_difference(plain: bytes, data: st.DataObject) -> None:
    def pieces(content: bytes) -> list[bytes]:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=12)))
        return [content[a:b] for a, b in itertools.pairwise([0, *cuts, len(content)])]

    sealer, opener = Sealer(KEY, context=CONTEXT, chunk_bytes=CHUNK), Opener(KEY, context=CONTEXT)
    sealed = b"".join([sealer.update(piece) for piece in pieces(plain)]) + sealer.finish()
    assert len(sealed) == sealed_size(len(plain), chunk_bytes=CHUNK)
    assert b"".join([opener.update(piece) for piece in pieces(sealed)]) + opener.finish() == plain


@pytest.mark.parametrize("size", [0, 1, 100, CHUNK, CHUNK + 1])
def test_every_flipped_bit_is_refused(size: int) -> None:
    plain = plain_of(size)
    sealed = sealed_of(plain)
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_refused(bytes(damaged), plain)


@pytest.mark.parametrize("size", [0, 1, CHUNK, 2 * CHUNK, 2 * CHUNK + 7])
def test_every_truncation_is_refused(size: int) -> None:
    plain = plain_of(size)
    sealed = sealed_of(plain)
    for length in range(len(sealed)):
        assert_refused(sealed[:length], plain)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("extra", [b"\0", b"\0" * 16, b"\0" * 17, b"\0" * SEALED_CHUNK])
def test_what_is_appended_is_refused(size: int, extra: bytes) -> None:
    plain = plain_of(size)
    assert_refused(sealed_of(plain) + extra, plain)


@given(order=st.lists(st.integers(0, 3), max_size=7))
@settings(max_examples=300, deadline=None)
def test_chunks_left_out_doubled_or_in_another_order_are_refused(order: list[int]) -> None:
    plain = plain_of(3 * CHUNK + 500)
    header, chunks = chunks_of(sealed_of(plain))
    if order != [0, 1, 2, 3]:
        assert_refused(header + b"".join(chunks[number] for number in order), plain)


@pytest.mark.parametrize("size", [2 * CHUNK, 2 * CHUNK + 7])
def test_chunks_of_another_content_under_the_same_key_are_refused(size: int) -> None:
    plain = plain_of(size)
    header, chunks = chunks_of(sealed_of(plain))
    _, others = chunks_of(sealed_of(plain))
    for number in range(len(chunks)):
        mixed = [*chunks]
        mixed[number] = others[number]
        assert_refused(header + b"".join(mixed), plain)


@given(damaged=st.binary(max_size=3000))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_refused(damaged: bytes) -> None:
    with pytest.raises(SealBroken):
        unseal(KEY, damaged, context=CONTEXT)
    with pytest.raises(SealBroken):
        unseal(KEY, sealed_of(b"")[:HEADER_BYTES] + damaged, context=CONTEXT)


@given(
    flips=st.lists(
        st.tuples(st.integers(0, 4000), st.integers(1, 255)), min_size=1, max_size=8, unique_by=lambda f: f[0]
    )
)
@settings(max_examples=200, deadline=None)
def test_damage_in_several_places_is_refused(flips: list[tuple[int, int]]) -> None:
    plain = plain_of(4 * CHUNK)
    damaged = bytearray(sealed_of(plain))
    for at, change in flips:
        damaged[at] ^= change
    assert_refused(bytes(damaged), plain)


def test_a_full_last_chunk_is_not_followed_by_an_empty_one() -> None:
    """Two encodings of one content would let somebody change a sealed object without changing what it says."""
    sealer = Sealer(KEY, context=CONTEXT, chunk_bytes=CHUNK)
    plain = plain_of(CHUNK)
    # What a careless sealer would write: the chunk as not the last, and an empty last one.
    sealed = sealer._take_header() + sealer._seal_chunk(plain, last=False) + sealer._seal_chunk(b"", last=True)
    assert_refused(sealed, plain)


def test_another_key_and_another_context_do_not_open() -> None:
    for size in SIZES:
        sealed = sealed_of(plain_of(size))
        assert_refused(sealed, b"", key=OTHER_KEY)
        assert_refused(sealed, b"", context=b"v1")
        assert_refused(sealed, b"", context=b"")


def test_the_same_content_is_never_sealed_to_the_same_bytes() -> None:
    assert len({seal(KEY, b"same", context=CONTEXT) for _ in range(50)}) == 50


def test_the_error_says_nothing_of_key_or_content() -> None:
    secret = b"i-am-the-content"
    sealed = bytearray(sealed_of(secret))
    sealed[-1] ^= 1
    with pytest.raises(SealBroken) as caught:
        unseal(KEY, bytes(sealed), context=b"other")
    with pytest.raises(SealBroken) as second:
        unseal(KEY, bytes(sealed), context=CONTEXT)
    for error in (caught.value, second.value):
        told = f"{error.message} {error.details} {error.field}"
        assert "i-am-the" not in told
        assert KEY.hex() not in told


def test_a_hostile_header_does_not_choose_how_much_is_held_in_memory() -> None:
    sealed = sealed_of(b"x")
    for chunk_bytes in (0, 1, 512, 1025, 1 << 21, 1 << 31, (1 << 32) - 1):
        header = sealed[:8] + chunk_bytes.to_bytes(4, "big") + sealed[12:]
        with pytest.raises(SealBroken, match="format"):
            Opener(KEY, context=CONTEXT).update(header)


def test_many_small_pieces_cost_no_more_than_a_few_large_ones() -> None:
    """Half a chunk byte by byte: held bytes are appended to, not copied each time."""
    opener, sealer = Opener(KEY, context=CONTEXT), Sealer(KEY, context=CONTEXT)
    plain = plain_of(1 << 17)
    sealed = b"".join([sealer.update(plain[at : at + 1]) for at in range(len(plain))]) + sealer.finish()
    assert b"".join([opener.update(sealed[at : at + 1]) for at in range(len(sealed))]) + opener.finish() == plain


def test_what_is_finished_takes_no_more() -> None:
    sealer = Sealer(KEY, context=CONTEXT)
    sealed = sealer.finish()
    opener = Opener(KEY, context=CONTEXT)
    assert opener.update(sealed) + opener.finish() == b""
    for used in (sealer, opener):
        with pytest.raises(ValueError, match="already"):
            used.update(b"")
        with pytest.raises(ValueError, match="already"):
            used.finish()


def test_derived_keys_are_of_one_purpose_each() -> None:
    keys = [derive_key(KEY, purpose) for purpose in ("", "a", "b", "version v1", "version v2")]
    assert len({*keys, KEY, derive_key(OTHER_KEY, "a")}) == len(keys) + 2
    assert all(len(key) == KEY_BYTES for key in keys)
    assert derive_key(KEY, "a") == keys[1]


def test_the_format_does_not_drift() -> None:
    """Content that was sealed once has to open for as long as it is kept."""
    sealed = bytes.fromhex(GOLDEN)
    assert unseal(KEY, sealed, context=CONTEXT) == b"sealed in 2026"
    assert derive_key(KEY, "version v1").hex() == GOLDEN_DERIVED


def test_new_keys_differ_and_odd_ones_are_refused() -> None:
    assert len({new_key() for _ in range(10)}) == 10
    for odd in (b"", b"x" * 16, b"x" * 33):
        with pytest.raises(ValueError, match="32 bytes"):
            Sealer(odd, context=b"")
    for odd_size in (0, 1000, 1 << 21):
        with pytest.raises(ValueError, match="power of two"):
            Sealer(KEY, context=b"", chunk_bytes=odd_size)


GOLDEN = (
    "4c4f525259534c010004000081f3b6d0137f0985badb9785be05ed62451b207868b28efc8049dfa109be932078d974cbec94"
    "81abb36033aba77ba6ba896e8d0a3b2b8f60cf675a9eff2f813ac78c44413df681b0116f01ef419362d3a0e92b6dc490e716"
    "4b77e06bc476"
)
GOLDEN_DERIVED = "67b5167a67fd56253deb6e15880b646f78c23443ee7fa9b566c62a24da020ce8"


def filling(data: bytes, *, at_most: int = 1 << 30) -> Fill:
    """What fills buffers with these bytes, at most so many in one piece."""
    left = memoryview(data)

    def read_into(view: memoryview) -> int:
        nonlocal left
        piece = left[: min(len(view), at_most)]
        view[: len(piece)] = piece
        left = left[len(piece) :]
        return len(piece)

    def fill(view: memoryview) -> int:
        filled = 0
        while filled < len(view) and (count := read_into(view[filled:])):
            filled += count
        return filled

    return fill


@pytest.mark.parametrize("plain_bytes", [0, 1, 1023, 1024, 1025, 2048, 5000])
def test_a_stream_opens_what_was_sealed_at_every_length(plain_bytes: int) -> None:
    key, plain = new_key(), random.Random(plain_bytes).randbytes(plain_bytes)
    sealer = Sealer(key, context=b"this", chunk_bytes=1024)
    sealed = sealer.update(plain) + sealer.finish()

    for at_most in (1, 700, 1 << 20):
        pieces = [bytes(piece) for piece in open_stream(filling(sealed, at_most=at_most), key, context=b"this")]
        assert b"".join(pieces) == plain


@pytest.mark.parametrize("plain_bytes", [0, 1, 1023, 1024, 1025, 10_000])
def test_a_stream_is_opened_into_memory_where_all_of_it_lasts(plain_bytes: int) -> None:
    key, plain = new_key(), random.Random(plain_bytes).randbytes(plain_bytes)
    sealer = Sealer(key, context=b"this", chunk_bytes=1024)
    sealed = sealer.update(plain) + sealer.finish()

    memory = bytearray(plain_bytes + 3)
    pieces = list(open_stream(filling(sealed), key, context=b"this", into=memoryview(memory)))
    assert bytes(memory) == plain + bytes(3)
    assert b"".join(pieces) == plain


@pytest.mark.parametrize("room_bytes", [0, 1023, 1024, 2499])
def test_a_stream_that_does_not_fit_is_refused_and_writes_nothing_beyond(room_bytes: int) -> None:
    key = new_key()
    sealer = Sealer(key, context=b"this", chunk_bytes=1024)
    sealed = sealer.update(bytes(2500)) + sealer.finish()

    memory = bytearray(b"x" * 3000)
    with pytest.raises(SealBroken, match="longer"):
        list(open_stream(filling(sealed), key, context=b"this", into=memoryview(memory)[:room_bytes]))
    assert memory[room_bytes:] == b"x" * (3000 - room_bytes)


@pytest.mark.parametrize("cut", [1, 15, 16, 17, 500, 1040, 1041, 2080, 2600])
def test_a_stream_that_ends_early_is_refused(cut: int) -> None:
    key = new_key()
    sealer = Sealer(key, context=b"this", chunk_bytes=1024)
    sealed = sealer.update(bytes(2500)) + sealer.finish()

    with pytest.raises(SealBroken):
        list(open_stream(filling(sealed[:-cut]), key, context=b"this"))


@pytest.mark.parametrize("damage", ["flip", "longer", "swap", "key", "context", "empty chunk"])
def test_a_stream_of_other_bytes_is_refused(damage: str) -> None:
    key, other = new_key(), new_key()
    sealer = Sealer(key, context=b"this", chunk_bytes=1024)
    sealed = bytearray(sealer.update(bytes(3000)) + sealer.finish())
    first, second = slice(HEADER_BYTES, HEADER_BYTES + 1040), slice(HEADER_BYTES + 1040, HEADER_BYTES + 2080)
    if damage == "flip":
        sealed[1500] ^= 1
    elif damage == "longer":
        sealed += b"x"
    elif damage == "swap":
        sealed[first], sealed[second] = sealed[second], sealed[first]
    elif damage == "empty chunk":
        sealed += bytes(16)

    with pytest.raises(SealBroken):
        list(
            open_stream(
                filling(bytes(sealed)),
                other if damage == "key" else key,
                context=b"that" if damage == "context" else b"this",
            )
        )


@pytest.mark.parametrize("plain_bytes", [0, 1, 1023, 1024, 1025, 2048, 5000])
def test_a_stream_seals_to_what_opens_at_every_length(plain_bytes: int) -> None:
    key, plain = new_key(), random.Random(plain_bytes).randbytes(plain_bytes)

    for at_most in (1, 700, 1 << 20):
        fill = filling(plain, at_most=at_most)
        sealed = b"".join(bytes(piece) for piece in seal_stream(fill, key, context=b"this", chunk_bytes=1024))
        assert len(sealed) == sealed_size(plain_bytes, chunk_bytes=1024)
        assert unseal(key, sealed, context=b"this") == plain
        with pytest.raises(SealBroken):
            unseal(key, sealed, context=b"that")
