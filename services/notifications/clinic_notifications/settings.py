"""What notifications reads from its environment: the network's one identity at each vendor."""

from typing import Self

from clinic_shared.jurisdictions import Country, TransferSettings
from clinic_shared.settings import ServiceSettings
from pydantic import Field, SecretStr, model_validator

_FICTITIOUS = "fictitious"


class NotificationSettings(TransferSettings, ServiceSettings):
    url: str = Field(
        default="http://127.0.0.1:8080", description="Where vendors reach the gateway from outside"
    )
    fakes_url: str = Field(
        default="", description="Control address of the vendors' fakes; never in production"
    )

    whatsapp_country: Country = Field(
        default="US", description="where the vendor is: what goes there has left the country"
    )
    whatsapp_base_url: str = "https://graph.facebook.com"
    whatsapp_phone_number_id: str = "100000000000001"
    whatsapp_access_token: SecretStr = SecretStr(f"{_FICTITIOUS}-whatsapp-token")
    whatsapp_app_secret: SecretStr = SecretStr(f"{_FICTITIOUS}-whatsapp-app-secret")
    whatsapp_verify_token: SecretStr = SecretStr(f"{_FICTITIOUS}-whatsapp-verify-token")

    twilio_country: Country = "US"
    sms_prefixes: str = Field(
        default="",
        pattern=r"^(\+\d{1,7}(,\+\d{1,7})*)?$",
        description="beginnings of the numbers that text messages go to, such as +7,+375: calls to expensive"
        " countries are a known fraud; empty: to all",
    )
    twilio_base_url: str = "https://api.twilio.com"
    twilio_account_sid: str = "AC00000000000000000000000000000000"
    twilio_auth_token: SecretStr = SecretStr(f"{_FICTITIOUS}-twilio-token")
    twilio_sender: str = "+70000000000"

    postmark_country: Country = "US"
    postmark_base_url: str = "https://api.postmarkapp.com"
    postmark_server_token: SecretStr = SecretStr(f"{_FICTITIOUS}-postmark-token")
    postmark_sender: str = "clinic@example.org"

    vendor_timeout_seconds: float = Field(default=10, gt=0)
    unknown_outcome_grace_seconds: float = Field(
        default=180,
        gt=0,
        description="How long a call whose answer never came waits for a status callback before it is repeated",
    )

    @model_validator(mode="after")
    def _production_is_real(self) -> Self:
        if self.environment == "production" and self.fakes_url:
            raise ValueError("production has no fakes")
        return self

    @model_validator(mode="after")
    def _grace_outlasts_a_call(self) -> Self:
        # The grace is the lease of a call under way as well.
        if self.unknown_outcome_grace_seconds <= self.vendor_timeout_seconds:
            raise ValueError("the grace must be longer than a vendor's call may take")
        return self
