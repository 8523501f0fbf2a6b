"""What a visit costs whom: lists by version, departments, insurers, discounts, packages."""

from typing import Any

import httpx
import pytest
from clinic_billing.prices.quoting import reduced
from clinic_shared.ids import uuid7
from hypothesis import given
from hypothesis import strategies as st

from .conftest import PRICE, Till

CODE = "dermatology-consultation"


def problem(answer: httpx.Response) -> str:
    return str(answer.json()["type"]).rpartition("/")[2]


async def publish(till: Till, amount_minor: int, **changes: Any) -> httpx.Response:
    asked = {
        "centre_id": str(till.centre_id),
        "currency": "RUB",
        "valid_from": "2026-02-01",
        "prices": [{"service_code": CODE, "amount_minor": amount_minor}],
    }
    return await till.post("/v1/prices/lists", asked | changes)


async def discount(till: Till, basis_points: int, **changes: Any) -> None:
    asked = {
        "centre_id": str(till.centre_id),
        "code": f"less-{basis_points}",
        "basis_points": basis_points,
        "valid_from": "2026-01-01",
        "valid_until": "2027-01-01",
    }
    answer = await till.post("/v1/prices/discounts", asked | changes)
    assert answer.status_code == 201, answer.text


async def cover(till: Till, payer: str = "fictitious-insurer") -> httpx.Response:
    asked = {"patient_id": str(till.patient_id), "payer": payer, "valid_from": "2026-01-01"}
    return await till.post("/v1/prices/coverages", asked)


@pytest.fixture
async def package(till: Till) -> str:
    await till.billing.deliver_example("patients.patient-registered.v1", patient_id=str(till.patient_id))
    asked = {
        "centre_id": str(till.centre_id),
        "code": "two",
        "name": "Two consultations",
        "items": [{"service_code": CODE, "quantity": 2, "unit_amount_minor": 200_000}],
    }
    answer = await till.post("/v1/prices/packages", asked)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["package_id"])


async def test_a_published_list_counts_its_versions_and_ends_the_prices_before_it(till: Till) -> None:
    first, second = await publish(till, 260_000), await publish(till, 270_000, valid_from="2026-03-01")
    assert (first.json()["version"], second.json()["version"]) == (1, 2)
    prices = (await till.get("/v1/prices", service_code=CODE)).json()["items"]
    assert [(p["valid_from"], p["valid_until"], p["amount_minor"]) for p in prices] == [
        ("2026-01-01", "2026-02-01", PRICE),
        ("2026-02-01", "2026-03-01", 260_000),
        ("2026-03-01", None, 270_000),
    ]
    assert prices[2]["list_id"] == second.json()["list_id"]
    assert (await till.invoice())["total_minor"] == 270_000


async def test_a_list_with_one_price_that_can_t_begin_publishes_none(till: Till) -> None:
    await publish(till, 260_000)
    await till.billing.deliver_example("scheduling.service-defined.v1", service_id=str(uuid7()), code="other")
    prices = [{"service_code": code, "amount_minor": 1} for code in ("other", CODE)]
    again = await publish(till, 0, prices=prices)
    assert problem(again) == "price-already-set"
    assert (await till.get("/v1/prices", service_code="other")).json()["items"] == []
    assert len((await till.get("/v1/prices/lists")).json()) == 1


async def test_the_department_s_price_comes_before_the_centre_s(till: Till) -> None:
    await publish(till, 300_000, department_id=str(till.department_id))
    assert (await till.invoice())["total_minor"] == 300_000
    elsewhere = await till.invoice(department_id=str(uuid7()))
    assert elsewhere["total_minor"] == PRICE


async def test_an_insurer_pays_its_own_price_and_the_patient_nothing(till: Till) -> None:
    await publish(till, 180_000, payer="fictitious-insurer")
    await discount(till, 5000)
    assert (await cover(till)).status_code == 201
    invoice = await till.invoice()
    assert (invoice["total_minor"], invoice["payer"]) == (180_000, "fictitious-insurer")
    answer = await till.post(f"/v1/invoices/{invoice['invoice_id']}/payments", {}, till.patient())
    assert problem(answer) == "insurer-pays"
    [told] = await till.billing.events("billing.invoice-issued.v1")
    assert told.data["payer"] == "fictitious-insurer"
    other = await till.invoice(patient_id=str(uuid7()))
    assert (other["total_minor"], other["payer"]) == (PRICE // 2, "patient")


async def test_one_insurer_at_a_time_covers_a_patient(till: Till) -> None:
    await cover(till)
    assert problem(await cover(till, "another-insurer")) == "covered-already"


async def test_an_insurer_without_a_price_of_its_own_leaves_the_patient_to_pay(till: Till) -> None:
    await cover(till)
    invoice = await till.invoice()
    assert (invoice["total_minor"], invoice["payer"]) == (PRICE, "patient")


async def test_the_largest_discount_that_fits_is_shown_on_the_line(till: Till) -> None:
    await discount(till, 1000)
    await discount(till, 2000, patient_id=str(till.patient_id))
    await discount(till, 9000, service_code="other")
    await discount(till, 9500, valid_from="2025-01-01", valid_until="2026-01-01")
    [line] = (await till.invoice())["lines"]
    assert (line["unit_amount_minor"], line["list_unit_amount_minor"], line["discount_code"]) == (
        200_000,
        PRICE,
        "less-2000",
    )
    shown = await till.get("/v1/prices/discounts", centre_id=str(till.centre_id), on="2026-03-02")
    assert len(shown.json()) == 3


@given(amount=st.integers(0, 10**9), basis_points=st.integers(1, 10_000))
def test_a_discount_never_rounds_up_and_never_goes_below_nothing(amount: int, basis_points: int) -> None:
    less = reduced(amount, basis_points)
    assert 0 <= less <= amount
    assert less * 10_000 <= amount * (10_000 - basis_points) < (less + 1) * 10_000


async def test_visits_are_taken_from_a_package_once_it_is_paid(till: Till, package: str) -> None:
    body = {"patient_id": str(till.patient_id), "department_id": str(till.department_id)}
    sold = (await till.post(f"/v1/prices/packages/{package}/sales", body)).json()
    assert (sold["kind"], sold["total_minor"]) == ("advance", 400_000)
    assert (await till.invoice())["total_minor"] == PRICE
    await till.settle(sold)
    for _ in range(2):
        taken = await till.invoice()
        assert (taken["total_minor"], taken["outstanding_minor"]) == (200_000, 0)
    assert (await till.invoice())["total_minor"] == PRICE
    assert (await till.read_invoice(sold["invoice_id"]))["available_minor"] == 0
    await till.assert_books_are_right()


async def test_a_package_is_of_one_code_and_is_sold_until_it_is_withdrawn(till: Till, package: str) -> None:
    [offered] = (await till.get("/v1/prices/packages")).json()
    again = {name: offered[name] for name in ("centre_id", "code", "name", "items")}
    assert problem(await till.post("/v1/prices/packages", again)) == "package-code-taken"
    path = f"/v1/prices/packages/{package}"
    assert (await till.billing.http.delete(path, headers=till.biller())).status_code == 204
    body = {"patient_id": str(till.patient_id), "department_id": str(till.department_id)}
    assert (await till.post(f"{path}/sales", body)).status_code == 404


async def test_a_service_twice_in_a_list_or_package_is_refused(till: Till) -> None:
    twice = [{"service_code": CODE, "amount_minor": 1}] * 2
    assert (await publish(till, 0, prices=twice)).status_code == 422
