"""How people are found: names, phones, dates and identifiers as terms that can be compared.

Terms of different kinds can't meet: a name has letters and digits only, the others begin with a sign.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import date

LONGEST_BEGINNING = 16
"""Letters of a word that are compared where names are sealed; further ones make no difference."""


def phone_term(phone: str) -> str:
    """A phone in E.164 is its own term: it begins with a plus."""
    return phone


def birth_term(birth_on: date) -> str:
    return f"={birth_on.isoformat()}"


def identifier_term(authority: str, value: str) -> str:
    # The length keeps the authority and the value apart, whatever characters they have.
    return f"#{len(authority)}:{authority}|{value}"


def beginnings(words: Iterable[str]) -> set[str]:
    """Return all that a search for the beginnings of these words may ask for, as terms that are equal or not.

    `иван` of Иванов Иван stands once with 1 and once with 2: how many words begin so is part of the term, since
    words that nobody can read can't be counted.
    """
    counted: Counter[str] = Counter()
    for word in set(words):
        counted.update(word[:length] for length in range(1, min(len(word), LONGEST_BEGINNING) + 1))
    return {beginning_term(start, n) for start, count in counted.items() for n in range(1, count + 1)}


def beginning_term(start: str, at_least: int) -> str:
    """Return the term of everybody of whose words `at_least` so many begin with this."""
    return f"{at_least}:{start[:LONGEST_BEGINNING]}"


def words_to_match(words: Iterable[str]) -> list[tuple[str, int]]:
    """Return each prefix with how many of a patient's words must begin with it.

    "Иванов Иван" must not find every Иванов, although иван begins иванов: two words must begin with
    иван, one of them with иванов. Since prefixes nest, that is all that a proper pairing needs.
    """
    asked = list(words)
    return [(prefix, sum(w.startswith(prefix) for w in asked)) for prefix in dict.fromkeys(asked)]
