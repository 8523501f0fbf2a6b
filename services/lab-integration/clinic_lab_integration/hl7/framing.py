"""MLLP blocks out of a stream of bytes: `<VT> message <FS><CR>` (HL7 v2, transport specification, release 1).

Reads may end anywhere, also between FS and CR, and hold several blocks. What senders leave out or add
around a block (no VT, an FS without its CR, line ends, empty blocks that keep a connection alive) is borne.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

START, END = b"\x0b", b"\x1c\r"
_FS = 0x1C
# An FS inside a message is text like any other; what follows tells that the block is over.
_BLOCK_END = re.compile(rb"\x1c(?=[\r\x0b])")
_BETWEEN = b"\x0b\x1c\r\n \t\x00"
_KEPT_OF_TOO_LARGE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Block:
    """`whole` is False for one with more bytes than are taken: then `payload` is only its beginning."""

    payload: bytes
    whole: bool = True


class BlockReader:
    """Collects what was read until a block is complete. Holds at most `max_bytes` and one read."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffer = bytearray()
        self._searched = 0
        self._beginning: bytes | None = None

    @property
    def is_between(self) -> bool:
        """Nothing of a block has come yet."""
        return not self._buffer and self._beginning is None

    @property
    def may_be_over(self) -> bool:
        """The last byte is an FS: a sender that omits the CR waits for its answer now."""
        return self._buffer[-1:] == b"\x1c"

    def feed(self, data: bytes) -> Iterator[Block]:
        """Return the blocks that are complete with `data`."""
        self._buffer += data
        while True:
            if self._beginning is None:
                self._skip_to_block()
            end = _BLOCK_END.search(self._buffer, max(0, self._searched - 1))
            if end is None:
                break
            yield self._take(end.start(), end.end())
        self._searched = len(self._buffer)
        if len(self._buffer) > self._max_bytes:
            self._forget_all_but_the_beginning()

    def end(self) -> Block | None:
        """Take what is there as a block whose CR won't come."""
        if not self.may_be_over:
            return None
        return self._take(len(self._buffer) - 1, len(self._buffer))

    def _skip_to_block(self) -> None:
        blanks = len(self._buffer) - len(self._buffer.lstrip(_BETWEEN))
        del self._buffer[:blanks]
        self._searched = max(0, self._searched - blanks)

    def _take(self, end: int, following: int) -> Block:
        payload, whole = bytes(self._buffer[:end]), True
        if self._beginning is not None or end > self._max_bytes:
            payload, whole = self._beginning or payload[:_KEPT_OF_TOO_LARGE], False
        del self._buffer[:following]
        self._searched, self._beginning = 0, None
        return Block(payload, whole)

    def _forget_all_but_the_beginning(self) -> None:
        if self._beginning is None:
            self._beginning = bytes(self._buffer[:_KEPT_OF_TOO_LARGE])
        # An FS may stand at the very end of what was read.
        del self._buffer[:-1]
        self._searched = 0


def frame(payload: bytes) -> bytes:
    return START + payload + END
