"""The rules of money that a request can break, each with its cause and remedy."""

from clinic_shared.errors import DomainError, InvalidRequestError, ReferenceNotYetKnownError


class PriceAlreadySetError(DomainError):
    """A price of the same thing at the same centre begins on that date."""

    slug = "price-already-set"
    title = "A price begins on that date already"
    fix = "Let the new price begin on another date."


class CurrencyMismatchError(InvalidRequestError):
    """A centre charges in its legal entity's currency."""

    slug = "currency-mismatch"
    title = "The centre charges in another currency"
    fix = "State the price in `currency`."


class NothingToPayError(DomainError):
    """The invoice is paid, free or cancelled."""

    slug = "nothing-to-pay"
    title = "Nothing is left to pay on this invoice"
    fix = "Read the invoice's status; what was paid in error is refunded."


class AmountTooHighError(InvalidRequestError):
    """More was asked for than is left on the invoice or payment."""

    slug = "amount-too-high"
    title = "The amount is more than what is left"
    fix = "Ask for no more than `outstanding_minor` or `refundable_minor`, whichever the problem names."


class PaymentInProgressError(DomainError):
    """Another payment of the invoice, of another amount, waits for the provider."""

    slug = "payment-in-progress"
    title = "Another payment of this invoice is in progress"
    fix = "Complete the payment that `payment_id` names, or wait until it is cancelled."


class NotCancellableError(DomainError):
    """Only a payment that waits for the provider can be cancelled."""

    slug = "not-cancellable"
    title = "The payment is no longer pending"
    fix = "Read the payment's status; one that succeeded is refunded instead."


class NotRefundableError(DomainError):
    """Only money that was received, and is neither refunded nor being refunded, can go back."""

    slug = "not-refundable"
    title = "Nothing of this payment can be refunded"
    fix = "Read the payment and its refunds; a refund under way may still fail and free its amount."


class UnknownPaymentError(DomainError):
    """A provider told of money that no payment here asked for."""

    slug = "unknown-payment"
    title = "No payment here belongs to this notification"
    fix = "Find the charge at the provider. If it isn't the clinic's, discard the notification."


class PaymentMismatchError(DomainError):
    """A provider told of another amount or currency than was asked for."""

    slug = "payment-mismatch"
    title = "The amount or currency is not the one that was asked for"
    fix = "Refund the charge at the provider if it is wrong, and discard the notification with the reason."


class PaymentClosedError(DomainError):
    """A provider told of money for a payment that had failed or been cancelled."""

    slug = "payment-closed"
    title = "The payment is closed and can't succeed any more"
    fix = "Refund the charge at the provider, then discard the notification with that as the reason."


class RefundReversedError(DomainError):
    """A refund that had succeeded failed later: the money came back."""

    slug = "refund-reversed"
    title = "A refund that had succeeded was reversed"
    fix = "Give the patient the money back by another way, and discard the notification with a note of it."


class PaymentNotYetReceivedError(ReferenceNotYetKnownError):
    """A refund was told of a payment whose money hasn't arrived."""


class ApprovedByOneselfError(DomainError):
    """Who asked for money to go back, or to be given up, can't also be the one who approves of it."""

    slug = "approved-by-oneself"
    title = "A second person has to decide this"
    fix = "Let somebody else who may refund payments decide."


class AlreadyDecidedError(DomainError):
    """It was approved or turned down before, or needed nobody's approval."""

    slug = "already-decided"
    title = "This doesn't wait for a decision"
    fix = "Read its status."


class NotAnAdvanceError(InvalidRequestError):
    """Only money that was paid in advance, for the same patient and legal entity, can be set against an invoice."""

    slug = "not-an-advance"
    title = "This is no advance of the invoice's patient and legal entity"
    fix = "Name an invoice of kind `advance` of the same patient, legal entity and currency."


class NothingAvailableError(DomainError):
    """An advance is used up, not paid yet, or being refunded."""

    slug = "nothing-available"
    title = "Nothing of this advance is available"
    fix = "Read the advance's `available_minor` and its payments' refunds."


class InsurerPaysError(DomainError):
    """The invoice goes to the patient's insurer."""

    slug = "insurer-pays"
    title = "The patient's insurer pays this invoice"
    fix = "Nothing is to be paid by the patient; `payer` gets the invoice."
