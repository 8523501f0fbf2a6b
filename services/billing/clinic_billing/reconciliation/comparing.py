"""What doesn't agree, pure: each side is compared with the ledger, which says what we believe."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from clinic_billing.reconciliation.statements import BankLine


class Kind(StrEnum):
    PROVIDER_UNKNOWN = "provider-unknown"  # the provider doesn't know what the ledger has
    PROVIDER_DIFFERS = "provider-differs"  # other amounts, or not received there
    LEDGER_MISSING = "ledger-missing"  # received there, not booked here
    RECEIPT_MISSING = "receipt-missing"
    RECEIPT_OPEN = "receipt-open"
    RECEIPT_DIFFERS = "receipt-differs"
    PAYOUT_MISSING = "payout-missing"  # the bank hasn't got what the provider holds for the day
    BANK_UNMATCHED = "bank-unmatched"  # a line of the bank that nobody expects


@dataclass(frozen=True, kw_only=True)
class Discrepancy:
    kind: Kind
    subject: str
    provider: str | None = None
    expected_minor: int | None = None
    found_minor: int | None = None
    currency: str | None = None


@dataclass(frozen=True, kw_only=True)
class Booked:
    """A payment by the ledger: received less refunded, both as movements say."""

    payment_id: str
    provider: str
    reference: str | None
    received_minor: int
    refunded_minor: int
    currency: str


@dataclass(frozen=True, kw_only=True)
class AtProvider:
    received_minor: int
    refunded_minor: int
    currency: str


@dataclass(frozen=True, kw_only=True)
class OwedReceipt:
    """A movement of money with its receipt. `registered_minor` is None until there is one."""

    movement_id: str
    amount_minor: int
    currency: str
    exists: bool
    done: bool
    tendered_minor: int | None


def with_provider(booked: Iterable[Booked], there: Mapping[str, AtProvider | None]) -> list[Discrepancy]:
    """Compare payments with what their provider says of them; who wasn't asked isn't compared."""
    asked = [payment for payment in booked if payment.payment_id in there]
    found = []
    for payment in asked:
        theirs = there[payment.payment_id]
        kind = _provider_kind(payment, theirs)
        if kind is not None:
            found.append(
                Discrepancy(
                    kind=kind,
                    subject=payment.payment_id,
                    provider=payment.provider,
                    expected_minor=payment.received_minor - payment.refunded_minor,
                    found_minor=theirs.received_minor - theirs.refunded_minor if theirs else None,
                    currency=payment.currency,
                )
            )
    return found


def _provider_kind(ours: Booked, theirs: AtProvider | None) -> Kind | None:
    if theirs is None:
        return Kind.PROVIDER_UNKNOWN if ours.received_minor else None
    if theirs.received_minor and not ours.received_minor:
        return Kind.LEDGER_MISSING
    same = (ours.received_minor, ours.refunded_minor, ours.currency) == (
        theirs.received_minor,
        theirs.refunded_minor,
        theirs.currency,
    )
    return None if same else Kind.PROVIDER_DIFFERS


def with_receipts(owed: Iterable[OwedReceipt]) -> list[Discrepancy]:
    found = []
    for one in owed:
        kind = _receipt_kind(one)
        if kind is not None:
            found.append(
                Discrepancy(
                    kind=kind,
                    subject=one.movement_id,
                    expected_minor=one.amount_minor,
                    found_minor=one.tendered_minor,
                    currency=one.currency,
                )
            )
    return found


def _receipt_kind(one: OwedReceipt) -> Kind | None:
    if not one.exists:
        return Kind.RECEIPT_MISSING
    if not one.done:
        return Kind.RECEIPT_OPEN
    return Kind.RECEIPT_DIFFERS if one.tendered_minor != one.amount_minor else None


def with_bank(
    expected: Mapping[tuple[str, str], int], lines: Sequence[tuple[str, BankLine]]
) -> list[Discrepancy]:
    """Compare what providers hold by (provider, currency) for a day with the bank's lines (id, line).

    A provider's payout is known by its name in the line; a fee may have been kept back, so it may be less.
    """
    found: list[Discrepancy] = []
    matched: set[str] = set()
    for (provider, currency), amount in sorted(expected.items()):
        mine = [(key, line) for key, line in lines if _names(line, provider) and line.currency == currency]
        matched.update(key for key, _ in mine)
        paid_out = sum(line.amount_minor for _, line in mine)
        if amount and not 0 < paid_out <= amount:
            found.append(
                Discrepancy(
                    kind=Kind.PAYOUT_MISSING,
                    subject=f"{provider} {currency}",
                    provider=provider,
                    expected_minor=amount,
                    found_minor=paid_out,
                    currency=currency,
                )
            )
    return found + [
        Discrepancy(
            kind=Kind.BANK_UNMATCHED, subject=key, found_minor=line.amount_minor, currency=line.currency
        )
        for key, line in lines
        if key not in matched
    ]


def _names(line: BankLine, provider: str) -> bool:
    said = f"{line.counterparty} {line.purpose}".casefold()
    return any(name in said for name in _NAMES.get(provider, (provider,)))


_NAMES = {
    "stripe": ("stripe",),
    "yookassa": ("yookassa", "yoomoney", "юkassa", "юмани", "юкасса"),
    "razorpay": ("razorpay",),
}
