"""The rules of a cash desk that a request can break."""

from clinic_shared.errors import DomainError


class DeskNameTakenError(DomainError):
    """The centre has a desk of that name."""

    slug = "desk-name-taken"
    title = "The centre has a cash desk of that name"
    fix = "Give it another name."


class ShiftOpenError(DomainError):
    """A drawer belongs to one shift at a time."""

    slug = "shift-open"
    title = "A shift is open at this desk"
    fix = "Close the shift that `shift_id` names first."


class NoShiftOpenError(DomainError):
    """Money is taken, given back and carried only within a shift."""

    slug = "no-shift-open"
    title = "No shift is open at this desk"
    fix = "Open a shift."


class NotEnoughCashError(DomainError):
    """More cash was asked for than is in the drawer."""

    slug = "not-enough-cash"
    title = "There isn't enough cash in the drawer"
    fix = "Put cash in, or give the money back another way. `cash_minor` is there."


class WrongDeskError(DomainError):
    """A desk takes money for its own legal entity and currency only."""

    slug = "wrong-desk"
    title = "This desk can't take money for that invoice"
    fix = "Use a desk of the invoice's legal entity and currency."
