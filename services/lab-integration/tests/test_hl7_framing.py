"""MLLP blocks, however the bytes of the stream are cut into reads."""

import random

import pytest
from clinic_lab_integration.hl7.framing import Block, BlockReader, frame

MESSAGES = [b"MSH|^~\\&|A\rOBR|1\r", b"MSH|^~\\&|B\rOBR|2\r", b"MSH|^~\\&|C\x1cstill C\rOBR|3\r"]


def read(*reads: bytes, max_bytes: int = 1000) -> list[Block]:
    reader = BlockReader(max_bytes)
    return [block for data in reads for block in reader.feed(data)]


@pytest.mark.parametrize("seed", range(20))
def test_reads_may_end_anywhere(seed):
    stream = b"".join(map(frame, MESSAGES))
    rng = random.Random(seed)
    cuts = sorted(rng.sample(range(len(stream)), rng.randint(1, len(stream) - 1)))
    reads = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [block.payload for block in read(*reads)] == MESSAGES


def test_one_read_may_hold_several_blocks():
    assert [block.payload for block in read(b"".join(map(frame, MESSAGES)))] == MESSAGES


@pytest.mark.parametrize("between", [b"\r\n", b"\n\n ", b"\x0b\x1c\r", b"\x00"])
def test_what_stands_between_blocks_is_borne(between):
    stream = between.join(map(frame, MESSAGES)) + between
    assert [block.payload for block in read(stream)] == MESSAGES


def test_a_block_without_its_start_is_a_block():
    assert read(MESSAGES[0] + b"\x1c\r") == [Block(MESSAGES[0])]


def test_a_block_end_without_its_cr_ends_at_the_next_start():
    assert [b.payload for b in read(b"\x0bA\x1c\x0bB\x1c\r")] == [b"A", b"B"]


def test_a_sender_that_waits_after_fs_alone_can_be_answered():
    reader = BlockReader(1000)
    assert list(reader.feed(b"\x0bA\x1c")) == []
    assert reader.may_be_over
    assert reader.end() == Block(b"A")
    assert list(reader.feed(b"\r\x0bB\x1c\r")) == [Block(b"B")]


def test_an_unfinished_block_is_none():
    reader = BlockReader(1000)
    assert list(reader.feed(b"\x0bMSH|")) == []
    assert not reader.is_between
    assert reader.end() is None


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_of_too_large_a_block_the_beginning_is_known_and_the_next_is_read(step):
    stream = frame(b"MSH|" + b"x" * 500) + frame(b"MSH|small")
    reads = [stream[at : at + step] for at in range(0, len(stream), step)]
    large, small = read(*reads, max_bytes=100)
    assert (large.whole, large.payload[:6], small) == (False, b"MSH|xx", Block(b"MSH|small"))


def test_too_large_a_block_does_not_fill_the_memory():
    reader = BlockReader(10_000)
    for _ in range(100):
        assert list(reader.feed(b"x" * 10_000)) == []
    assert len(reader._buffer) <= 20_000
