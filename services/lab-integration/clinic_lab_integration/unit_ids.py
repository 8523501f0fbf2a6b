"""How a patient group of a message is named in URLs: the message's id, a dot, the group's index."""

from uuid import UUID

from clinic_shared.errors import NotFoundError

UNIT_ID = r"^[0-9a-fA-F-]{36}\.[0-9]{1,6}$"


def read_unit_id(unit_id: str) -> tuple[UUID, int]:
    """Raises NotFoundError: what can't be an id names nothing."""
    message_id, _, index = unit_id.rpartition(".")
    try:
        return UUID(message_id), int(index)
    except ValueError:
        raise NotFoundError from None
