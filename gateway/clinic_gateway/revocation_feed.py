"""SessionRevoked, heard by each replica for itself."""

from collections.abc import Callable

from aiormq.abc import DeliveredMessage
from clinic_shared.envelope import decode_body
from clinic_shared.health import Health
from clinic_shared.topology import event_exchange

from clinic_gateway.exclusive_feed import ExclusiveFeed
from clinic_gateway.revocation_view import FEED
from clinic_gateway.tokens import Revocation, Revocations

BINDING = (event_exchange("identity"), "identity.session-revoked.v1")


def revocation_feed(
    amqp_url: str, revocations: Revocations, health: Health, *, opened: Callable[[], None]
) -> ExclusiveFeed:
    def receive(delivery: DeliveredMessage) -> None:
        revocations.take([Revocation.model_validate(decode_body(delivery.body, None))])

    return ExclusiveFeed(FEED, amqp_url, health, bindings=[BINDING], receive=receive, opened=opened)
