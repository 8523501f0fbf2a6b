"""Phone numbers, as people write them and as they are kept (E.164)."""

import phonenumbers


class NotAPhoneError(ValueError):
    """The text can't be dialled."""


def to_e164(text: str, *, region: str) -> str:
    """Return a number in E.164; without a country code it is one of the region's. Raises NotAPhoneError.

    Only the length is judged: numbering plans change faster than libraries, and a refused number is a
    patient who can't be called.
    """
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        raise NotAPhoneError from None
    if number.extension or not phonenumbers.is_possible_number(number):
        raise NotAPhoneError
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))
