"""Whose law a deployment follows, and to which countries patients' data may go by it.

Who sends data to somebody outside asks here first, and a refusal is audited.
"""

from collections.abc import Mapping
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from pydantic_settings import BaseSettings, SettingsConfigDict

from clinic_shared.errors import TransferNotAllowedError

_FILE = Path(__file__).with_name("jurisdictions.yaml")

Jurisdiction = Literal["gdpr", "152-fz", "hipaa"]
Country = Annotated[str, StringConstraints(pattern="^[A-Z]{2}$")]
"""ISO 3166-1, two letters."""


class Transfers(BaseModel):
    """What one jurisdiction says of data that leave the country."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    basis: str
    countries: tuple[tuple[Country, ...], ...] | None = None

    def allow(self, country: str) -> bool:
        return self.countries is None or country in chain.from_iterable(self.countries)


@cache
def transfers() -> Mapping[Jurisdiction, Transfers]:
    content = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[Jurisdiction, Transfers]).validate_python(content)


class TransferSettings(BaseSettings):
    """Settings of a service that sends patients' data to others."""

    model_config = SettingsConfigDict(env_prefix="CLINIC_", extra="ignore")

    jurisdiction: Jurisdiction = Field(
        default="gdpr",
        description="whose law says what is kept and erased, and where data may go (jurisdictions.yaml)",
    )
    transfers_also_to: Annotated[str, StringConstraints(pattern="^([A-Z]{2}(,[A-Z]{2})*)?$")] = Field(
        default="",
        description="countries (ISO 3166-1, comma separated) to which the operator has another ground to send data",
    )

    def may_send_to(self, country: str) -> bool:
        return transfers()[self.jurisdiction].allow(country) or country in self.transfers_also_to.split(",")

    def require_transfer(self, country: str) -> None:
        """Raises TransferNotAllowedError."""
        if not self.may_send_to(country):
            raise TransferNotAllowedError(country=country, basis=transfers()[self.jurisdiction].basis)
