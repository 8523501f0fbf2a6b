"""What codes and units stand for: mapped by versions, and asked about while results flow."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from clinic_lab_integration import tables
from clinic_lab_integration.meaning import (
    CodeMap,
    MapKind,
    Meaning,
    PanicRange,
    SourceCode,
    Target,
    Written,
    understand,
)

from .conftest import Laboratory

HGB = SourceCode(MapKind.TEST, "", "HGB")
MAPPED = CodeMap(2, {HGB: Target(code="718-7", display="Hemoglobin", unit="g/L")})


def written(**changes: Any) -> Written:
    return Written(
        **{"code": "HGB", "system": None, "display": "Hb", "value": "9.5", "units": "g/dL", **changes}
    )


class TestUnderstanding:
    def test_a_mapped_code_is_loinc_in_the_unit_that_is_wanted(self) -> None:
        meaning, unmapped = understand(written(), MAPPED, {})
        assert meaning == Meaning(code="718-7", display="Hemoglobin", units="g/L", value="95", map_version=2)
        assert unmapped == ()

    def test_what_can_t_be_converted_stays_as_it_was_written(self) -> None:
        meaning, _ = understand(written(units="mmol/L"), MAPPED, {})
        assert (meaning.units, meaning.value) == ("mmol/L", None)

    def test_what_nobody_has_mapped_is_named(self) -> None:
        meaning, unmapped = understand(written(code="X", units="cells/field"), MAPPED, {})
        assert (meaning.code, meaning.units) == (None, None)
        named = [(s.kind.value, s.code) for s in unmapped]
        assert named == [("test", "X"), ("unit", "cells/field")]

    def test_the_laboratory_s_own_loinc_needs_no_map_but_a_map_has_the_last_word(self) -> None:
        standard = Meaning(code="30313-1", display="Hemoglobin in arterial blood")
        assert understand(written(code="X", standard=standard), MAPPED, {})[0].code == "30313-1"
        assert understand(written(standard=standard), MAPPED, {})[0].code == "718-7"

    @pytest.mark.parametrize(
        ("value", "units", "flag"),
        [
            ("6.6", "mmol/L", "HH"),
            ("6.5", "mmol/L", None),
            ("2.4", "mmol/L", "LL"),
            ("2.5", "mmol/L", None),
            (">6.5", "mmol/L", "HH"),
            ("<6.6", "mmol/L", None),
            ("<2.5", "mmol/L", "LL"),
            ("<=2.5", "mmol/L", None),
            (">2", "mmol/L", None),
            ("6600", "umol/L", "HH"),
            ("6.6", "meq/L", None),
            ("6.6", None, None),
            ("high", "mmol/L", None),
            (None, "mmol/L", None),
        ],
    )
    def test_only_what_is_certainly_outside_is_critical(self, value, units, flag) -> None:
        limits = PanicRange("2823-3", "mmol/L", Decimal("2.5"), Decimal("6.5"))
        assert limits.flag(value, units) == flag


def message(
    compose: Any, value: str = "9.5", *, code: str = "HGB", number: str = "1", flags: str = ""
) -> bytes:
    return compose(
        "PID|1||MRN-1^^^POLYCLINIC^MR",
        f"OBR|1||F-{number}|CBC^Blood count||||||||||||||||||20260115102500+0300|||F",
        f"OBX|1|NM|{code}^Haemoglobin||{value}|g/dL|12-14|{flags}|||F",
        msh={10: f"M-{number}"},
    )


async def change(lab: Laboratory, *changes: Any, **headers: str) -> Any:
    return await lab.lab.http.post(
        f"/v1/lab/partners/{lab.partner_id}/code-map",
        json={"changes": list(changes)},
        headers=lab.headers("system-administrator") | headers,
    )


async def unmapped(lab: Laboratory) -> list[tuple[str, str]]:
    found = (await lab.get("/v1/lab/unmapped-codes", "system-administrator"))["items"]
    return [(one["kind"], one["source_code"]) for one in found]


async def meanings(lab: Laboratory) -> list[Any]:
    events = [e for e in await lab.lab.events() if ".lab-result-" in e.type]
    return [e.private["observations"][0]["meaning"] for e in events]


TO_LOINC = {"source_code": "HGB", "code": "718-7", "display": "Hemoglobin", "unit": "g/L"}


async def test_results_flow_while_their_codes_wait_to_be_mapped(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    message_id = await lab.send(message(compose))
    await lab.send(message(compose, number="2"))
    assert await unmapped(lab) == [("test", "HGB")]
    [gap] = await lab.rows(tables.unmapped_code)
    assert (gap["message_id"], gap["display"]) == (UUID(message_id), "Haemoglobin")
    changed = await change(lab, TO_LOINC)
    assert (changed.status_code, changed.json()["version"]) == (200, 1)
    assert await unmapped(lab) == []
    await lab.send(message(compose, number="3"))
    first, _, third = await meanings(lab)
    assert (first["code"], first["units"], first["map_version"]) == (None, "g/dL", None)
    assert third == {
        "code": "718-7",
        "display": "Hemoglobin",
        "units": "g/L",
        "value": "95",
        "panic": None,
        "map_version": 1,
    }


async def test_a_map_has_versions_and_the_earlier_ones_can_be_read(lab: Laboratory) -> None:
    await change(lab, TO_LOINC, {"kind": "unit", "source_code": "G%", "code": "g/dL"})
    second = await change(lab, TO_LOINC | {"code": "20509-6"}, **{"If-Match": '"1"'})
    assert second.json()["version"] == 2, second.text
    assert (await change(lab, TO_LOINC, **{"If-Match": '"1"'})).status_code == 412
    assert (await change(lab, {"source_code": "HGB", "code": None})).json()["version"] == 3

    async def codes(**query: Any) -> list[str]:
        path = f"/v1/lab/partners/{lab.partner_id}/code-map"
        return [e["code"] for e in (await lab.get(path, "system-administrator", **query))["items"]]

    assert sorted(await codes(version=1)) == ["718-7", "g/dL"]
    assert sorted(await codes(version=2)) == ["20509-6", "g/dL"]
    assert await codes() == ["g/dL"]


async def test_what_is_taken_out_of_a_map_is_asked_about_again(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.send(message(compose))
    await change(lab, TO_LOINC)
    await change(lab, {"source_code": "HGB", "code": None})
    await lab.send(message(compose, number="2"))
    assert await unmapped(lab) == [("test", "HGB")]


async def test_another_map_makes_no_other_result(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await lab.send(message(compose))
    await change(lab, TO_LOINC)
    again = message(compose).replace(b"M-1", b"M-9")
    message_id = await lab.send(again)
    assert await lab.units(message_id) == [("superseded", None)]


async def test_a_value_outside_its_panic_range_is_critical_without_a_flag(lab: Laboratory, compose) -> None:
    await lab.add_patient()
    await change(lab, TO_LOINC)
    limits = {"unit": "g/L", "low": "70", "high": "200"}
    path = "/v1/lab/panic-ranges/718-7"
    put = await lab.lab.http.put(path, json=limits, headers=lab.headers("system-administrator"))
    assert put.status_code == 200, put.text
    await lab.send(message(compose, "6.1"))
    await lab.send(message(compose, "9.5", number="2"))
    found = (await lab.get("/v1/lab/obligations", kind="critical-result"))["items"]
    assert len(found) == 1
    assert [m["panic"] for m in await meanings(lab)] == ["LL", None]
    detail = await lab.get(f"/v1/lab/obligations/{found[0]['obligation_id']}")
    assert [v["value"] for v in detail["critical_values"]] == ["6.1"]
    gone = await lab.lab.http.delete(path, headers=lab.headers("system-administrator"))
    assert gone.status_code == 204
    await lab.send(message(compose, "6.0", number="3"))
    assert len((await lab.get("/v1/lab/obligations", kind="critical-result"))["items"]) == 1


@pytest.mark.parametrize(
    "wrong",
    [
        TO_LOINC | {"unit": "grams"},
        {"kind": "unit", "source_code": "x", "code": "pieces"},
        {"source_code": "", "code": "718-7"},
    ],
)
async def test_a_map_that_makes_no_sense_is_refused(lab: Laboratory, wrong: Any) -> None:
    assert (await change(lab, wrong)).status_code == 422
    assert (await change(lab, TO_LOINC, TO_LOINC)).status_code == 422


@pytest.mark.parametrize("limits", [{}, {"low": 5, "high": 5}, {"low": 1, "unit": "grams"}, {"low": "NaN"}])
async def test_a_panic_range_that_makes_no_sense_is_refused(lab: Laboratory, limits: Any) -> None:
    headers = lab.headers("system-administrator")
    answer = await lab.lab.http.put("/v1/lab/panic-ranges/718-7", json=limits, headers=headers)
    assert answer.status_code == 422


async def test_who_may_change_what_codes_stand_for(lab: Laboratory) -> None:
    path = f"/v1/lab/partners/{lab.partner_id}/code-map"
    for roles, status in (((), 401), (("doctor",), 403), (("registrar",), 403)):
        headers = lab.headers(*roles) if roles else {}
        answer = await lab.lab.http.post(path, json={"changes": [TO_LOINC]}, headers=headers)
        assert answer.status_code == status
