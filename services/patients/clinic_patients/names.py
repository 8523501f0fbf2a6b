"""How people are found: names, phones, dates and identifiers as terms that can be compared.

Spelling that people don't tell apart when they search is folded: case, accents, and the two dots of ё.
Terms of different kinds can't meet: a name has letters and digits only, the others begin with a sign.
"""

import re
import unicodedata
from collections.abc import Iterable
from datetime import date

_BREVE = "\N{COMBINING BREVE}"
_APOSTROPHES = str.maketrans("", "", "'`\N{RIGHT SINGLE QUOTATION MARK}\N{MODIFIER LETTER APOSTROPHE}")
_WORD = re.compile(r"[^\W_]+")


def fold(text: str) -> str:
    """Return text without case, accents and apostrophes; й stays another letter than и."""
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_APOSTROPHES))
    kept = "".join(c for c in decomposed if not unicodedata.combining(c) or c == _BREVE)
    return unicodedata.normalize("NFC", kept)


def name_words(text: str) -> list[str]:
    """Return the folded words of a name in their order; a double-barrelled name has two."""
    return _WORD.findall(fold(text))


def phone_term(phone: str) -> str:
    """A phone in E.164 is its own term: it begins with a plus."""
    return phone


def birth_term(birth_on: date) -> str:
    return f"={birth_on.isoformat()}"


def identifier_term(authority: str, value: str) -> str:
    # The length keeps the authority and the value apart, whatever characters they have.
    return f"#{len(authority)}:{authority}|{value}"


def words_to_match(words: Iterable[str]) -> list[tuple[str, int]]:
    """Return each prefix with how many of a patient's words must begin with it.

    "Иванов Иван" must not find every Иванов, although иван begins иванов: two words must begin with
    иван, one of them with иванов. Since prefixes nest, that is all that a proper pairing needs.
    """
    asked = list(words)
    return [(prefix, sum(w.startswith(prefix) for w in asked)) for prefix in dict.fromkeys(asked)]
