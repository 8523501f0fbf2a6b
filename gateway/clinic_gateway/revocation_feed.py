"""SessionRevoked, heard by each replica for itself."""

from uuid import UUID

from aiormq.abc import DeliveredMessage
from clinic_shared.envelope import decode_body
from clinic_shared.health import Health
from clinic_shared.topology import event_exchange
from pydantic import AwareDatetime, BaseModel

from clinic_gateway.exclusive_feed import ExclusiveFeed
from clinic_gateway.tokens import Revocations

BINDING = (event_exchange("identity"), "identity.session-revoked.v1")


class _SessionRevoked(BaseModel):
    """Without a session, all of the principal's are meant."""

    principal_id: UUID
    session_id: UUID | None
    issued_before: AwareDatetime
    expires_at: AwareDatetime


def revocation_feed(amqp_url: str, revocations: Revocations, health: Health) -> ExclusiveFeed:
    def receive(delivery: DeliveredMessage) -> None:
        revoked = _SessionRevoked.model_validate(decode_body(delivery.body, None))
        if revoked.session_id is not None:
            revocations.revoke_session(revoked.session_id, until=revoked.expires_at)
        else:
            revocations.revoke_account(
                revoked.principal_id, issued_before=revoked.issued_before, until=revoked.expires_at
            )

    return ExclusiveFeed("revocations", amqp_url, health, bindings=[BINDING], receive=receive)
