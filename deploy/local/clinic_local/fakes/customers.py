"""What the fakes of payment providers have in common: how the customer pays, and calls that fail on command."""

import base64
from typing import Literal

from pydantic import BaseModel, Field
from starlette.requests import Request

from clinic_local.fakes.world import Fault

Document = dict[str, object]


class CustomerPayment(BaseModel):
    """How the customer pays. `lie` only tells of it: nothing is paid."""

    outcome: Literal["succeeded", "declined"] = "succeeded"
    deliveries: int = Field(
        default=1, ge=0, le=10, description="how often (0: lost) each notification is delivered"
    )
    lie: bool = False


class VendorError(Exception):
    def __init__(self, status: int, document: Document) -> None:
        super().__init__(status)
        self.status = status
        self.document = document


def status_of(fault: Fault | None) -> int | None:
    """Return the status that a call fails with, if it is to fail."""
    if fault is None or not (fault.status or fault.code):
        return None
    return fault.status or 400


def is_basic(request: Request, user: str, password: str) -> bool:
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    return request.headers.get("authorization") == wanted
