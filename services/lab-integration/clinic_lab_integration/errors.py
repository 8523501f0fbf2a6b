"""What people and laboratories are told when the rules forbid what they ask."""

from clinic_shared.errors import DomainError, InvalidRequestError


class NotParkedError(DomainError):
    """Only what waits for a person can be decided by one."""

    slug = "not-parked"
    title = "This part of the message is not parked"
    fix = "`disposition` says what became of it; read the work-list again."


class NotUndoableError(DomainError):
    """Only a person's own decision can be taken back, while nothing rests on it."""

    slug = "not-undoable"
    title = "This decision can't be taken back"
    fix = (
        "What was matched by its numbers, or told to the laboratory, stays. Where newer messages have changed the"
        " same report, take their decisions back first."
    )


class PossibleDuplicateError(DomainError):
    """Somebody who is registered may be meant."""

    slug = "possible-duplicate"
    title = "This person may be registered already"
    fix = "Attach the results to one of `candidates`, or send their ids in `not_the_same_as`."


class NameMissingError(DomainError):
    """The laboratory sent no name that somebody could be registered under."""

    slug = "name-missing"
    title = "The message names nobody"
    status = 422
    fix = "Register the patient at the front desk, then attach the results."


class OtherPatientError(DomainError):
    """Other reports of the same patient group stand in another patient's chart."""

    slug = "filed-for-another-patient"
    title = "Parts of this group are filed for another patient"
    fix = "Attach it to the same patient; if that is the wrong one, the laboratory retracts and resends."


class PartnerDisabledError(DomainError):
    """The clinic has switched this laboratory off."""

    slug = "partner-disabled"
    title = "This laboratory is switched off here"
    status = 403
    fix = "Ask the clinic; send the message again once it takes results from you."


class ProtocolNotAgreedError(DomainError):
    """The laboratory's configuration names other ways in."""

    slug = "protocol-not-agreed"
    title = "This laboratory sends another way"
    status = 403
    fix = "Send as agreed with the clinic, or ask it to open this way (`protocols` of the partner)."


class OrderNotCancellableError(DomainError):
    """Results are in, or the order is cancelled already."""

    slug = "order-not-cancellable"
    title = "This order can't be cancelled"
    fix = "`order_status` says how far it has come. What the laboratory has done is billed and filed."


class NothingRefusedError(DomainError):
    """Only what a laboratory has refused is sent again by hand; the rest is tried again by itself."""

    slug = "nothing-refused"
    title = "The laboratory has refused nothing of this order"
    fix = "`transmissions` says what was sent and answered."


class LaboratoryAddressRefusedError(InvalidRequestError):
    """We connect to laboratories on the public internet, and in networks that the operator has named."""

    slug = "laboratory-address-refused"
    title = "Nothing is sent to this address"
    fix = (
        "Name a public host; for a laboratory inside the house the operator sets CLINIC_LABORATORY_NETWORKS."
    )
