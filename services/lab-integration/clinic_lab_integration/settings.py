"""What lab-integration reads from its environment beside what every service reads."""

from clinic_shared.settings import ServiceSettings
from pydantic import Field


class LabSettings(ServiceSettings):
    partner_refresh_seconds: float = Field(
        default=5.0, gt=0, description="how often partners are read again into memory"
    )
