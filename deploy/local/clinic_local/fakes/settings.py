"""What the fakes read from the environment; the credentials match the development defaults of the services."""

from collections.abc import Mapping
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "CLINIC_"


class FakesSettings(BaseModel):
    model_config = ConfigDict(frozen=True)

    http_host: str = "127.0.0.1"
    http_port: int = 0
    url: str = Field(default="http://127.0.0.1:8080", description="the gateway, where callbacks go")

    whatsapp_token: str = "fictitious-whatsapp-token"  # noqa: S105
    whatsapp_app_secret: str = "fictitious-whatsapp-app-secret"  # noqa: S105
    whatsapp_verify_token: str = "fictitious-whatsapp-verify-token"  # noqa: S105
    whatsapp_phone_number_id: str = "100000000000001"
    whatsapp_callback_url: str = ""
    whatsapp_verify_on_start: bool = False
    twilio_account_sid: str = "AC00000000000000000000000000000000"
    twilio_auth_token: str = "fictitious-twilio-token"  # noqa: S105
    twilio_callback_url: str = ""
    postmark_server_token: str = "fictitious-postmark-token"  # noqa: S105
    stripe_api_key: str = "sk_test_fictitious"
    stripe_webhook_secret: str = "whsec_fictitious"  # noqa: S105
    stripe_webhook_url: str = ""
    yookassa_shop_id: str = "100001"
    yookassa_secret_key: str = "fictitious-yookassa-key"  # noqa: S105
    yookassa_webhook_url: str = ""
    razorpay_key_id: str = "rzp_test_fictitious"
    razorpay_key_secret: str = "fictitious-razorpay-key"  # noqa: S105
    razorpay_webhook_secret: str = "fictitious-razorpay-webhook"  # noqa: S105
    razorpay_webhook_url: str = ""
    atol_login: str = "fictitious-atol-login"
    atol_password: str = "fictitious-atol-password"  # noqa: S105

    fakes_duplicate_every: int = Field(default=0, ge=0, description="every n-th callback series comes twice")
    fakes_reorder_every: int = Field(
        default=0, ge=0, description="every n-th callback series comes out of order"
    )
    fakes_callback_delay_seconds: float = Field(default=0.05, ge=0)
    fakes_retry_base_seconds: float = Field(default=0.25, gt=0)
    fakes_retry_attempts: int = Field(default=40, ge=1, description="with the cap of 30 s about 17 minutes")
    fakes_read_receipts: bool = True

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Self:
        """Read exactly `environ`: the supervisor forks, so the process's own environment is not the truth."""
        names = {PREFIX + name.upper(): name for name in cls.model_fields}
        return cls.model_validate({names[key]: value for key, value in environ.items() if key in names})

    @property
    def whatsapp_callback(self) -> str:
        return self.whatsapp_callback_url or f"{self.url}/v1/webhooks/messaging/whatsapp"

    @property
    def twilio_callback(self) -> str:
        return self.twilio_callback_url or f"{self.url}/v1/webhooks/messaging/twilio"

    @property
    def stripe_webhook(self) -> str:
        return self.stripe_webhook_url or f"{self.url}/v1/webhooks/payments/stripe"

    @property
    def yookassa_webhook(self) -> str:
        return self.yookassa_webhook_url or f"{self.url}/v1/webhooks/payments/yookassa"

    @property
    def razorpay_webhook(self) -> str:
        return self.razorpay_webhook_url or f"{self.url}/v1/webhooks/payments/razorpay"
