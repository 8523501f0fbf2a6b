"""Which providers the clinic has accounts at, by its settings."""

from collections.abc import Mapping

from clinic_billing.providers.port import PaymentProvider, ProviderNotInstalledError
from clinic_billing.providers.razorpay import Razorpay
from clinic_billing.providers.stripe import Stripe
from clinic_billing.providers.yookassa import YooKassa
from clinic_billing.settings import BillingSettings


class Providers:
    """Stripe always, the others once their secrets are there."""

    def __init__(self, settings: BillingSettings) -> None:
        self._stripe = Stripe.connect(
            base_url=settings.stripe_base_url,
            secret_key=settings.stripe_secret_key.get_secret_value(),
            webhook_secrets=settings.stripe_webhook_secrets,
        )
        self._yookassa = YooKassa.connect(
            base_url=settings.yookassa_base_url,
            shop_id=settings.yookassa_shop_id,
            secret_key=settings.yookassa_secret_key.get_secret_value(),
        )
        self._razorpay = Razorpay.connect(
            base_url=settings.razorpay_base_url,
            key_id=settings.razorpay_key_id,
            key_secret=settings.razorpay_key_secret.get_secret_value(),
            webhook_secrets=settings.razorpay_webhook_secrets,
        )
        self.installed: Mapping[str, PaymentProvider] = {
            provider.name: provider
            for provider in (self._stripe, self._yookassa, self._razorpay)
            if provider.name in settings.payment_providers
        }
        self.default = settings.payment_providers[0]

    def of(self, name: str) -> PaymentProvider:
        """Raises ProviderNotInstalledError."""
        try:
            return self.installed[name]
        except KeyError:
            raise ProviderNotInstalledError(providers=sorted(self.installed)) from None

    def use(self, settings: BillingSettings) -> None:
        """Go on with secrets that have been replaced."""
        self._stripe.use(
            secret_key=settings.stripe_secret_key.get_secret_value(),
            webhook_secrets=settings.stripe_webhook_secrets,
        )
        self._yookassa.use(
            shop_id=settings.yookassa_shop_id,
            secret_key=settings.yookassa_secret_key.get_secret_value(),
        )
        self._razorpay.use(
            key_id=settings.razorpay_key_id,
            key_secret=settings.razorpay_key_secret.get_secret_value(),
            webhook_secrets=settings.razorpay_webhook_secrets,
        )

    async def aclose(self) -> None:
        for provider in (self._stripe, self._yookassa, self._razorpay):
            await provider.aclose()
