"""What the requests of several routes share: field types, the desk, and where they come from."""

from typing import Annotated
from zoneinfo import available_timezones

from clinic_shared.errors import RuleError
from clinic_shared.routing import CurrentRuntime
from fastapi import Depends
from fastapi import Request as HttpRequest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from clinic_identity.desk import Desk
from clinic_identity.domain import Visit


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _known_time_zone(name: str) -> str:
    if name not in available_timezones():
        raise RuleError("not a time zone of the IANA database")
    return name


Code = Annotated[str, Field(max_length=64, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217", examples=["RUB"])]
Language = Annotated[str, Field(pattern=r"^[a-z]{2,3}(-[A-Za-z0-9]{2,8})*$", max_length=35, examples=["ru"])]
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$", description="E.164", examples=["+70000000100"])]
TimeZone = Annotated[str, AfterValidator(_known_time_zone), Field(max_length=64, examples=["Europe/Moscow"])]
Login = Annotated[str, Field(min_length=1, max_length=254, examples=["anna.testova@example.org"])]
Password = Annotated[str, Field(min_length=1, max_length=1024)]


async def _desk(runtime: CurrentRuntime) -> Desk:
    return runtime.get(Desk)


CurrentDesk = Annotated[Desk, Depends(_desk)]


async def _visit(request: HttpRequest) -> Visit:
    """Return where the client is, as the gateway tells it; it lets nobody else's header through."""
    told = request.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
    address = told or (request.client.host if request.client else "unknown")
    return Visit(address=address, agent=request.headers.get("user-agent", ""))


CurrentVisit = Annotated[Visit, Depends(_visit)]
