"""From bytes to text: which character set a message is written in, and how that was found out.

Declared (MSH-18) is believed unless the bytes prove it wrong; undeclared text is UTF-8 when it can
be, else Windows-1251 and its relatives, which Russian laboratories send without saying so.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise


class CharsetSource(StrEnum):
    DECLARED = "declared"
    BYTE_ORDER_MARK = "byte-order-mark"
    DETECTED = "detected"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Charset:
    """`contradicted`: the declaration could not be true (or not be understood), so it was not used."""

    codec: str
    source: CharsetSource
    contradicted: bool = False


# HL7 table 0211 (v2.5.1, 2.15.9.18), and names seen in the field that the table lacks. UTF-16 is not
# here: what was cut at bytes is not UTF-16, whatever it declares.
_CODECS = {
    "ASCII": "ascii",
    **{f"8859/{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    **{f"ISO-8859-{part}": f"iso8859_{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
    "UTF8": "utf-8",
    "WINDOWS-1251": "cp1251",
    "CP1251": "cp1251",
    "WINDOWS-1252": "cp1252",
    "CP1252": "cp1252",
    "KOI8-R": "koi8_r",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "KS X 1001": "euc_kr",
}


def is_known(name: str) -> bool:
    return " ".join(name.upper().split()) in _CODECS


UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_STARTS = (b"\xff\xfe", b"\xfe\xff", b"M\x00S\x00H\x00", b"\x00M\x00S\x00H")

_CYRILLIC_CODECS = ("cp1251", "iso8859_5", "cp866")
# Units (degree, plus-minus, powers, micro, middle dot) stand at the same place in Latin and in
# Windows-1251 and say nothing about the language.
_WORD = re.compile(rb"([A-Za-z]?)([\x80-\xaf\xb4\xb6\xb8\xba-\xff]+)([A-Za-z]?)")
_SAMPLE_BYTES = 16_384
# Letters of Russian text from frequent to rare, weighted by rank: enough to tell code pages apart.
_WEIGHT = {letter: 34 - rank for rank, letter in enumerate("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё")}
_NOT_RUSSIAN = -40
_CAPITAL_INSIDE_WORD = -60


def is_utf16(payload: bytes) -> bool:
    """UTF-16 can't be cut at bytes, so the whole payload must be told apart before anything else."""
    return payload.startswith(_UTF16_STARTS)


def read_utf16(payload: bytes) -> str:
    if payload.startswith(_UTF16_STARTS[:2]):
        return payload.decode("utf-16", errors="replace")
    return payload.decode("utf-16-le" if payload.startswith(b"M") else "utf-16-be", errors="replace")


def decode(sent: bytes, declared: str) -> tuple[str, Charset]:
    """The text of one message; bytes that have no meaning in the character set become U+FFFD."""
    raw = sent.removeprefix(UTF8_MARK)
    if len(raw) < len(sent) and _is_valid(raw, "utf-8"):
        return raw.decode(), Charset("utf-8", CharsetSource.BYTE_ORDER_MARK)
    codec = _CODECS.get(" ".join(declared.upper().split()))
    if codec and _is_valid(raw, codec):
        return raw.decode(codec), Charset(codec, CharsetSource.DECLARED)
    if raw.isascii():
        return raw.decode("ascii"), Charset("ascii", CharsetSource.DEFAULT, contradicted=bool(declared))
    detected = detect(raw)
    charset = Charset(detected, CharsetSource.DETECTED, contradicted=bool(declared))
    return raw.decode(detected, errors="replace"), charset


def decode_escaped(raw: bytes, codec: str) -> str:
    r"""The bytes of a `\Xdd..\` escape, which may leave the character set the message declares."""
    return raw.decode(codec if _is_valid(raw, codec) else detect(raw), errors="replace")


def detect(raw: bytes) -> str:
    """UTF-8 if the bytes are that; else Latin or Cyrillic by what stands beside the high bytes.

    In Latin text they are single letters between ASCII ones, in Cyrillic text they are whole words.
    """
    if _is_valid(raw, "utf-8"):
        return "utf-8"
    words = _WORD.findall(raw[:_SAMPLE_BYTES]) or _WORD.findall(raw)
    latin = sum(len(word) for before, word, after in words if before or after)
    cyrillic = sum(len(word) for before, word, after in words if len(word) > 1 and not (before or after))
    if cyrillic <= latin:
        return "cp1252"
    text = [word for _, word, _ in words]
    return max(_CYRILLIC_CODECS, key=lambda codec: sum(_plausibility(word, codec) for word in text))


def _is_valid(raw: bytes, codec: str) -> bool:
    try:
        raw.decode(codec)
    except UnicodeDecodeError:
        return False
    return True


def _plausibility(word: bytes, codec: str) -> int:
    text = word.decode(codec, errors="replace")
    score = sum(_WEIGHT.get(letter.lower(), _NOT_RUSSIAN) for letter in text)
    inner_capitals = sum(left.islower() and right.isupper() for left, right in pairwise(text))
    return score + inner_capitals * _CAPITAL_INSIDE_WORD
