"""How long audit records are kept at least, by jurisdiction. Pure; the law stands in `retention.yaml`."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import yaml
from clinic_shared.jurisdictions import Jurisdiction
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

ONLINE_DAYS = 90
"""At least so long a record stays where it can be searched at once (PCI DSS 10.5.1: three months)."""
_FILE = Path(__file__).with_name("retention.yaml")


class Floor(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    kept_years: int = Field(ge=6)
    basis: str


@cache
def floors() -> Mapping[Jurisdiction, Floor]:
    content = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return TypeAdapter(dict[Jurisdiction, Floor]).validate_python(content)
