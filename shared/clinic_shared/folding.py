"""Names as they are compared: spelling that people don't tell apart is folded away, of letters none is lost."""

import re
import unicodedata

_BREVE = "\N{COMBINING BREVE}"
_APOSTROPHES = str.maketrans("", "", "'`\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}")
_WORD = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """Return text without case, accents and apostrophes, the two dots of ё; й stays another letter than и."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_APOSTROPHES))
    kept = "".join(c for c in decomposed if not unicodedata.combining(c) or c == _BREVE)
    return unicodedata.normalize("NFC", kept)


def name_words(text: str) -> list[str]:
    """Return the folded words of a name in their order; a double-barrelled name has two."""
    return _WORD.findall(fold(text))
