"""What billing reads from its environment beside what every service reads."""

from typing import Self

from clinic_shared.settings import ServiceSettings
from pydantic import Field, SecretStr, model_validator

_FICTITIOUS = "fictitious"
KNOWN_PROVIDERS = ("stripe", "yookassa", "razorpay")


class BillingSettings(ServiceSettings):
    payment_provider: str = Field(
        default="stripe",
        description="Providers with an account, comma separated; the first takes payments that name none",
    )
    payment_return_url: str = Field(
        default="https://clinic.example/paid",
        description="Where a provider's own payment page sends the customer afterwards",
    )
    approval_limit_minor: int = Field(
        default=1_000_000,
        ge=0,
        description="Above this, in minor units, a second person approves of a refund or a write-off",
    )
    stripe_base_url: str = "https://api.stripe.com"
    stripe_secret_key: SecretStr = SecretStr(f"sk_test_{_FICTITIOUS}")
    stripe_webhook_secret: SecretStr = Field(
        default=SecretStr(f"whsec_{_FICTITIOUS}"),
        description="Signing secrets of the webhook endpoint, comma separated while one replaces another",
    )
    yookassa_base_url: str = "https://api.yookassa.ru"
    yookassa_shop_id: str = ""
    yookassa_secret_key: SecretStr = SecretStr("")
    razorpay_base_url: str = "https://api.razorpay.com"
    razorpay_key_id: str = ""
    razorpay_key_secret: SecretStr = SecretStr("")
    razorpay_webhook_secret: SecretStr = Field(
        default=SecretStr(""), description="As Stripe's: comma separated while one replaces another"
    )

    atol_base_url: str = "https://online.atol.ru"
    atol_login: str = ""
    atol_password: SecretStr = SecretStr("")

    @property
    def payment_providers(self) -> list[str]:
        return _several(self.payment_provider)

    @property
    def stripe_webhook_secrets(self) -> list[str]:
        return _several(self.stripe_webhook_secret.get_secret_value())

    @property
    def razorpay_webhook_secrets(self) -> list[str]:
        return _several(self.razorpay_webhook_secret.get_secret_value())

    @model_validator(mode="after")
    def _providers_have_accounts(self) -> Self:
        """An empty secret would let anybody sign a notification, so a provider can't be installed without."""
        needed = {
            "yookassa": (self.yookassa_shop_id, self.yookassa_secret_key.get_secret_value()),
            "razorpay": (
                self.razorpay_key_id,
                self.razorpay_key_secret.get_secret_value(),
                "".join(self.razorpay_webhook_secrets),
            ),
        }
        for name in self.payment_providers or [""]:
            if name not in KNOWN_PROVIDERS:
                raise ValueError(f"CLINIC_PAYMENT_PROVIDER: one or more of {', '.join(KNOWN_PROVIDERS)}")
            if not all(needed.get(name, ("-",))):
                raise ValueError(
                    f"CLINIC_PAYMENT_PROVIDER names {name}: all of CLINIC_{name.upper()}_* must be set"
                )
        return self


def _several(text: str) -> list[str]:
    return [one.strip() for one in text.split(",") if one.strip()]
