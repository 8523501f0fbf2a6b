"""How people are found: names, phones, dates and identifiers as terms that can be compared.

Terms of different kinds can't meet: a name has letters and digits only, the others begin with a sign.
"""

from collections.abc import Iterable
from datetime import date


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
