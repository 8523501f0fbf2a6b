"""What the registry reads from its environment besides what every service does."""

from clinic_shared.settings import ServiceSettings
from pydantic import Field


class PatientsSettings(ServiceSettings):
    mrn_authority: str = Field(
        default="POLYCLINIC", min_length=1, description="assigning authority of our own record numbers"
    )
    default_phone_region: str = Field(
        default="RU",
        pattern="^[A-Z]{2}$",
        description="ISO 3166-1: whose national phone format is understood",
    )
