"""Who sees which referral, and how much of it."""

from clinic_shared.ids import uuid7

from .conftest import Clinic


async def test_without_a_token_or_the_scope_there_is_no_referral(clinic: Clinic) -> None:
    assert (await clinic.referrals.http.get("/v1/referrals")).status_code == 401
    biller = clinic.referrals.principal("biller")
    assert (await clinic.post("", biller, clinic.request())).status_code == 403


async def test_both_departments_see_it_and_a_third_doesn_t(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    third = clinic.doctor_of(uuid7())
    http, headers = clinic.referrals.http, clinic.referrals.headers
    statuses = [
        (await http.get(f"/v1/referrals/{referral_id}", headers=headers(caller))).status_code
        for caller in (clinic.sender, clinic.receiver, third)
    ]
    assert statuses == [200, 200, 404]
    assert (await http.get("/v1/referrals", headers=headers(third))).json()["items"] == []


async def test_the_receiving_department_has_its_inbound_list(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    answer = await clinic.referrals.http.get(
        "/v1/referrals",
        params={"to_department_id": str(clinic.dietetics), "status": "created"},
        headers=clinic.referrals.headers(clinic.receiver),
    )
    assert [item["referral_id"] for item in answer.json()["items"]] == [referral_id]


async def test_a_registrar_sees_the_state_but_not_the_question(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    registrar = clinic.referrals.principal("registrar")
    answer = await clinic.referrals.http.get(
        f"/v1/referrals/{referral_id}", headers=clinic.referrals.headers(registrar)
    )
    assert answer.json()["status"] == "created"
    assert answer.json()["question"] is None
    assert "Fictitious" not in answer.text


async def test_a_patient_sees_only_their_own(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    http, headers = clinic.referrals.http, clinic.referrals.headers
    owner = clinic.referrals.principal("patient", patient_id=clinic.patient_id)
    stranger = clinic.referrals.principal("patient", patient_id=uuid7())
    assert (await http.get(f"/v1/referrals/{referral_id}", headers=headers(owner))).status_code == 200
    assert (await http.get(f"/v1/referrals/{referral_id}", headers=headers(stranger))).status_code == 404
    assert (await http.get("/v1/referrals", headers=headers(stranger))).json()["items"] == []


async def test_a_change_of_what_was_not_seen_is_refused(clinic: Clinic) -> None:
    referral_id = await clinic.create()
    headers = clinic.referrals.headers(clinic.receiver) | {"If-Match": '"7"'}
    answer = await clinic.referrals.http.post(f"/v1/referrals/{referral_id}/accept", headers=headers)
    assert answer.status_code == 412


async def test_an_invalid_request_says_where_and_not_what(clinic: Clinic) -> None:
    answer = await clinic.post("", clinic.sender, clinic.request(question="", priority="Canaryova"))
    assert answer.status_code == 422
    assert "Canaryova" not in answer.text
