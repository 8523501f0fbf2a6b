"""What lab-integration reads from its environment beside what every service reads."""

from clinic_shared.settings import ServiceSettings
from pydantic import Field


class LabSettings(ServiceSettings):
    take_test_messages: bool | None = Field(
        default=None,
        description="whether messages for training and debugging (MSH-11 T, D) are filed like real ones;"
        " unset: everywhere but in production",
    )
    partner_refresh_seconds: float = Field(
        default=5.0, gt=0, description="how often partners are read again into memory"
    )

    @property
    def parks_test_messages(self) -> bool:
        return (
            self.environment == "production"
            if self.take_test_messages is None
            else not self.take_test_messages
        )
