"""Minor units and the decimal notation that others use for them. No float is ever in between."""

from decimal import Decimal, InvalidOperation

# ISO 4217; every other currency that the network may use has two decimals.
_DECIMALS = {"JPY": 0, "KRW": 0, "VND": 0, "CLP": 0, "BHD": 3, "KWD": 3, "OMR": 3, "TND": 3}
_MOST_DIGITS = 18


def decimals_of(currency: str) -> int:
    return _DECIMALS.get(currency, 2)


def to_minor(text: str, currency: str) -> int:
    """Read `1234.50` as minor units. Raises ValueError, also for more decimals than the currency has."""
    try:
        scaled = Decimal(text).scaleb(decimals_of(currency))
    except InvalidOperation as error:
        raise ValueError("not an amount") from error
    if not scaled.is_finite() or scaled != scaled.to_integral_value() or scaled.adjusted() >= _MOST_DIGITS:
        raise ValueError("not an amount of this currency")
    return int(scaled)


def to_text(amount_minor: int, currency: str) -> str:
    """Write minor units with all decimals of the currency, as `1234.50`."""
    return str(
        Decimal(amount_minor)
        .scaleb(-decimals_of(currency))
        .quantize(Decimal(1).scaleb(-decimals_of(currency)))
    )
