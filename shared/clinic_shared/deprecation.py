"""Operations that are on their way out: told in every answer (RFC 9745, RFC 8594), and counted."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from email.utils import format_datetime

from starlette.responses import Response

from clinic_shared.metrics import DEPRECATED_CALLS


@dataclass(frozen=True, kw_only=True)
class Deprecation:
    """`since` no new client should use it; on `sunset_on` it may be gone; `successor` is the path to use."""

    since: date
    sunset_on: date | None = None
    successor: str | None = None

    def tell(self, response: Response, route: str) -> None:
        DEPRECATED_CALLS.labels(route=route).inc()
        response.headers["Deprecation"] = f"@{int(_midnight(self.since).timestamp())}"
        if self.sunset_on is not None:
            response.headers["Sunset"] = format_datetime(_midnight(self.sunset_on), usegmt=True)
        if self.successor is not None:
            response.headers.append("Link", f'<{self.successor}>; rel="successor-version"')


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
