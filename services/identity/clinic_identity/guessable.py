"""Passwords that somebody who tries would try: common words, what is known of the person, and nothing much else.

The whole password is judged, and nothing is asked of its characters (NIST SP 800-63B, 3.1.1.2): words are taken out,
longest first, then years and digits or letters that follow each other; what is left must be something.
"""

import mmap
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from hashlib import sha1
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

_LOOK_ALIKES = str.maketrans("013457@$!|", "oleastasil")
_SHORTEST_WORD = 4
_LEAST_REST = 6
"""Code points that no list explains, different ones."""
_YEAR = re.compile(r"(?:19|20)[0-9]{2}")
_NO_WORD = re.compile(r"[\W_]+")
_PUNCTUATION = re.compile(r"[\s!-/:-@\[-`{-~]+")


def is_guessable(password: str, context: Iterable[str]) -> bool:
    """Tell whether too little is left of it without common words and `context`: names, login, clinic."""
    known = {*_common_words(), *(part for text in context for part in _words_of(text))}
    plain = _without_runs(_YEAR.sub("", password.casefold()))
    # Both spellings, for digits are letters in one password and a number in another.
    return any(_rest(spelling, known) < _LEAST_REST for spelling in (plain, _folded(password)))


class BreachedPasswords:
    """A file of SHA-1 hashes in order, one a line, as Have I Been Pwned offers it for download."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            self._content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)

    def __contains__(self, password: object) -> bool:
        wanted = sha1(str(password).encode(), usedforsecurity=False).hexdigest().upper().encode()
        low, high = 0, len(self._content)
        while low < high:
            middle = (low + high) // 2
            start = self._content.rfind(b"\n", low, middle) + 1 or low
            end = self._content.find(b"\n", middle, high)
            end = high if end < 0 else end
            found = self._content[start : start + len(wanted)].upper()
            if found == wanted:
                return True
            low, high = (end + 1, high) if found < wanted else (low, start)
        return False


@cache
def _common_words() -> frozenset[str]:
    text = files("clinic_identity").joinpath("data/common_words.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(_fold_letters(word) for line in lines for word in line.split())


def _words_of(text: str) -> Iterable[str]:
    parts = _NO_WORD.split(_fold_letters(text))
    return [part for part in parts if len(part) >= _SHORTEST_WORD]


def _folded(password: str) -> str:
    return _without_runs(_fold_letters(_YEAR.sub("", password)))


def _fold_letters(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold().translate(_LOOK_ALIKES)


def _rest(password: str, known: set[str]) -> int:
    for word in sorted(known, key=len, reverse=True):
        if len(word) > 2:  # noqa: PLR2004  # two letters are in everything
            password = password.replace(word, "")
    return len(set(_PUNCTUATION.sub("", password)))


def _without_runs(text: str) -> str:
    """Take out characters that repeat or follow each other (`1111`, `12345`, `fedcba`)."""
    if not text:
        return text
    kept: list[int] = []
    run = [0]
    steps = [ord(after) - ord(before) for before, after in pairwise(text)]
    for position, step in enumerate(steps, start=1):
        same = position == 1 or steps[position - 2] == step
        if same and step in {-1, 0, 1}:
            run.append(position)
        else:
            kept += run if len(run) <= 3 else []  # noqa: PLR2004  # `abc` may be part of a word
            run = [position]
    kept += run if len(run) <= 3 else []  # noqa: PLR2004
    return "".join(text[position] for position in kept)
