"""What billing reads from its environment beside what every service reads."""

from clinic_shared.settings import ServiceSettings
from pydantic import Field, SecretStr

_FICTITIOUS = "fictitious"


class BillingSettings(ServiceSettings):
    stripe_base_url: str = "https://api.stripe.com"
    stripe_secret_key: SecretStr = SecretStr(f"sk_test_{_FICTITIOUS}")
    stripe_webhook_secret: SecretStr = Field(
        default=SecretStr(f"whsec_{_FICTITIOUS}"),
        description="Signing secrets of the webhook endpoint, comma separated while one replaces another",
    )

    @property
    def stripe_webhook_secrets(self) -> list[str]:
        return [secret.strip() for secret in self.stripe_webhook_secret.get_secret_value().split(",")]
