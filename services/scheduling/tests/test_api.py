"""Who may call what, and what clients see when they may not."""

from datetime import timedelta
from uuid import UUID

import pytest
from clinic_shared.ids import uuid7

from .conftest import Clinic


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/appointments"),
        ("POST", "/v1/appointments"),
        ("GET", "/v1/slots"),
        ("POST", "/v1/services"),
        ("PUT", "/v1/availability"),
        ("POST", "/v1/rooms"),
    ],
)
async def test_without_a_token_there_is_no_answer(clinic: Clinic, method: str, path: str) -> None:
    answer = await clinic.scheduling.http.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_biller_may_not_book(clinic: Clinic) -> None:
    answer = await clinic.post("/v1/appointments", clinic.booking(), "biller")
    assert answer.status_code == 403


async def test_staff_book_only_where_they_work(clinic: Clinic) -> None:
    elsewhere = clinic.scheduling.principal("registrar", network=False, department_ids=frozenset({uuid7()}))
    answer = await clinic.scheduling.http.post(
        "/v1/appointments", json=clinic.booking(), headers=clinic.scheduling.headers(elsewhere)
    )
    assert answer.status_code == 403


async def test_a_patient_sees_and_books_only_their_own(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    stranger = clinic.scheduling.principal("patient", patient_id=uuid7())
    owner = clinic.scheduling.principal("patient", patient_id=clinic.patient_id)
    path = f"/v1/appointments/{mine['appointment_id']}"
    http, headers = clinic.scheduling.http, clinic.scheduling.headers
    assert (await http.get(path, headers=headers(stranger))).status_code == 404
    assert (await http.post(f"{path}/cancel", json={}, headers=headers(stranger))).status_code == 404
    refused = await http.post("/v1/appointments", json=clinic.booking(), headers=headers(stranger))
    assert refused.status_code == 404
    assert (await http.get(path, headers=headers(owner))).status_code == 200
    assert (await http.get("/v1/appointments", headers=headers(stranger))).json()["items"] == []


async def test_staff_of_another_department_don_t_learn_that_an_appointment_exists(clinic: Clinic) -> None:
    mine = (await clinic.book()).json()
    elsewhere = clinic.scheduling.principal("registrar", network=False, department_ids=frozenset({uuid7()}))
    answer = await clinic.scheduling.http.get(
        f"/v1/appointments/{mine['appointment_id']}", headers=clinic.scheduling.headers(elsewhere)
    )
    assert answer.status_code == 404


async def test_the_list_comes_in_pages(clinic: Clinic) -> None:
    times = [clinic.tomorrow_at_ten + timedelta(minutes=30 * i) for i in range(5)]
    booked = [(await clinic.book(starts_at=t.isoformat())).json()["appointment_id"] for t in times]
    headers = clinic.scheduling.headers(clinic.scheduling.principal("registrar"))
    seen: list[str] = []
    cursor: str | None = None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = (await clinic.scheduling.http.get("/v1/appointments", params=query, headers=headers)).json()
        seen += [item["appointment_id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == booked


async def test_slots_shrink_by_what_is_booked(clinic: Clinic) -> None:
    day = clinic.tomorrow_at_ten.replace(hour=0)
    query = {
        "service_id": str(clinic.service_id),
        "centre_id": str(clinic.centre_id),
        "department_id": str(clinic.department_id),
        "starts_at": day.isoformat(),
        "ends_at": (day + timedelta(days=1)).isoformat(),
    }
    headers = clinic.scheduling.headers(clinic.scheduling.principal("registrar"))

    async def starts() -> list[str]:
        answer = await clinic.scheduling.http.get("/v1/slots", params=query, headers=headers)
        assert answer.status_code == 200, answer.text
        return [slot["starts_at"] for slot in answer.json()]

    before = await starts()
    assert len(before) == 31  # nine to five by quarters of an hour, the last at half past four
    await clinic.book()
    gone = set(before) - set(await starts())
    # Half an hour from ten o'clock: starts at 09:45, 10:00 and 10:15 no longer fit.
    assert len(gone) == 3


async def test_a_slot_that_was_found_can_be_booked(clinic: Clinic) -> None:
    day = clinic.tomorrow_at_ten.replace(hour=0)
    query = {
        "service_id": str(clinic.service_id),
        "centre_id": str(clinic.centre_id),
        "department_id": str(clinic.department_id),
        "starts_at": day.isoformat(),
        "ends_at": (day + timedelta(days=1)).isoformat(),
        "limit": "1",
    }
    headers = clinic.scheduling.headers(clinic.scheduling.principal("registrar"))
    [slot] = (await clinic.scheduling.http.get("/v1/slots", params=query, headers=headers)).json()
    answer = await clinic.book(
        starts_at=slot["starts_at"], practitioner_id=slot["practitioner_id"], room_id=slot["room_id"]
    )
    assert answer.status_code == 201, answer.text


async def test_closed_hours_have_no_slots_and_take_no_bookings(clinic: Clinic) -> None:
    body = {
        "practitioner_id": str(clinic.practitioner_id),
        "centre_id": str(clinic.centre_id),
        "opens": False,
        "starts_at": clinic.tomorrow_at_ten.isoformat(),
        "ends_at": (clinic.tomorrow_at_ten + timedelta(hours=1)).isoformat(),
        "reason_code": "leave",
    }
    assert (await clinic.post("/v1/availability/exceptions", body)).status_code == 201
    assert (await clinic.book()).json()["type"].endswith("/outside-availability")


async def test_a_service_changes_only_as_it_was_seen_and_is_withdrawn(clinic: Clinic) -> None:
    path = f"/v1/services/{clinic.service_id}"
    body = {
        "code": "dermatology-consultation",
        "name": "Long consultation",
        "duration_seconds": 3600,
        "department_ids": [str(clinic.department_id)],
    }
    headers = clinic.scheduling.headers(clinic.scheduling.principal("system-administrator"))
    blind = await clinic.scheduling.http.put(path, json=body, headers=headers)
    assert blind.status_code == 428
    changed = await clinic.scheduling.http.put(path, json=body, headers=headers | {"If-Match": '"1"'})
    assert changed.json()["duration_seconds"] == 3600
    assert (await clinic.post(f"{path}/withdraw", {}, "system-administrator")).status_code == 200
    assert (await clinic.book()).json()["type"].endswith("/not-offered")


async def test_two_services_can_t_have_one_code(clinic: Clinic) -> None:
    body = {
        "code": "dermatology-consultation",
        "name": "Another",
        "duration_seconds": 900,
        "department_ids": [str(clinic.department_id)],
    }
    answer = await clinic.post("/v1/services", body, "system-administrator")
    assert answer.status_code == 409
    assert answer.json()["type"].endswith("/service-code-taken")


async def test_unknown_fields_are_refused_and_values_are_not_echoed(clinic: Clinic) -> None:
    answer = await clinic.post("/v1/appointments", clinic.booking(patient_name="Canaryova"))
    assert answer.status_code == 422
    assert "Canaryova" not in answer.text


async def test_practitioners_and_rooms_are_listed(clinic: Clinic) -> None:
    headers = clinic.scheduling.headers(clinic.scheduling.principal("registrar"))
    places = {"centre_id": str(clinic.centre_id), "department_id": str(clinic.department_id)}

    async def ids(path: str) -> list[UUID]:
        answer = await clinic.scheduling.http.get(path, params=places, headers=headers)
        return [UUID(item["resource_id"]) for item in answer.json()]

    assert await ids("/v1/practitioners") == [clinic.practitioner_id]
    assert await ids("/v1/rooms") == [clinic.room_id]
