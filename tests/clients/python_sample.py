"""What a client's program does with the generated package: book, list results, explain a problem."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

from polyclinic_client import AuthenticatedClient
from polyclinic_client.api.lab_integration import list_lab_results
from polyclinic_client.api.scheduling import book_appointment
from polyclinic_client.models import AppointmentResponse, BookRequest, Problem, ResultResponse
from polyclinic_client.types import UNSET


class RefusedError(Exception):
    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.title} ({problem.status}): {problem.detail} [{problem.request_id}]")
        self.slug = problem.type_.rpartition("/")[2]


async def book(client: AuthenticatedClient, request: BookRequest) -> AppointmentResponse:
    answer = await book_appointment.asyncio(client=client, body=request, idempotency_key=str(uuid4()))
    if isinstance(answer, Problem):
        raise RefusedError(answer)
    assert answer is not None
    return answer


async def results(client: AuthenticatedClient, patient_id: UUID) -> AsyncIterator[ResultResponse]:
    cursor: str | None = None
    while True:
        page = await list_lab_results.asyncio(client=client, patient_id=patient_id, cursor=cursor or UNSET)
        if isinstance(page, Problem):
            raise RefusedError(page)
        assert page is not None
        for result in page.items:
            yield result
        cursor = page.next_cursor
        if cursor is None:
            return
