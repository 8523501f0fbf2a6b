"""What the registry reads from its environment besides what every service does."""

from clinic_shared.jurisdictions import TransferSettings
from clinic_shared.settings import ServiceSettings
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class RegistrySettings(BaseSettings):
    """What registering needs wherever it is asked for, by a request or by an event."""

    model_config = SettingsConfigDict(env_prefix="CLINIC_", extra="ignore")

    mrn_authority: str = Field(
        default="POLYCLINIC", min_length=1, description="assigning authority of our own record numbers"
    )


class PatientsSettings(RegistrySettings, TransferSettings, ServiceSettings):
    default_phone_region: str = Field(
        default="RU",
        pattern="^[A-Z]{2}$",
        description="ISO 3166-1: whose national phone format is understood",
    )
