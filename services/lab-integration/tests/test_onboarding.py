"""A laboratory that is tried out: its own patients, no chart, and cases that pass one by one."""

import json
from typing import Any

import pytest
from clinic_lab_integration.partners import PartnerDirectory

from .conftest import MESSAGES, FhirBundle, Laboratory, msa

ADMIN = "system-administrator"


async def configure(lab: Laboratory, **body: Any) -> None:
    answer = await lab.lab.http.put(
        f"/v1/lab/partners/{lab.partner_id}", json=body, headers=lab.headers(ADMIN)
    )
    assert answer.status_code == 200, answer.text
    await lab.lab.runtime.get(PartnerDirectory).refresh()


@pytest.mark.parametrize(
    ("test_mode", "processing_id", "code"),
    [
        (True, "P", "AR"),
        (True, "T", "AA"),
        (True, "D", "AA"),
        (False, "P", "AA"),
        (False, "T", "AR"),
        (False, "D", "AR"),
    ],
)
async def test_tests_and_production_are_not_mixed(
    lab: Laboratory, compose, test_mode, processing_id, code
) -> None:
    await configure(lab, test_mode=test_mode)
    answer = await lab.post(compose(msh={11: processing_id}))
    assert msa(answer)[1] == code
    if code == "AR":
        assert "MSH^1^11|202^Unsupported processing id" in answer.text


async def test_a_test_reaches_no_chart_even_of_a_patient_it_names(lab: Laboratory, compose) -> None:
    await lab.add_patient("SANDBOX-0001")
    await configure(lab, test_mode=True)
    message_id = await lab.send(compose("PID|1||SANDBOX-0001^^^POLYCLINIC^MR", "OBR|1", msh={11: "T"}))
    assert await lab.units(message_id) == [("discarded", "sandbox")]
    other = await lab.send(compose(msh={10: "M-2", 11: "T"}))
    assert await lab.units(other) == [("discarded", "sandbox-unmatched")]
    assert await lab.result_events() == []
    assert await lab.dispositions() == {"answered": 2, "discarded": 2}


async def test_what_was_a_test_stays_one_though_the_laboratory_goes_live_meanwhile(
    lab: Laboratory, compose
) -> None:
    await lab.add_patient()
    await configure(lab, test_mode=True)
    answer = await lab.post(compose(msh={11: "T"}))
    await configure(lab, test_mode=False)
    await lab.process()
    message_id = answer.headers["location"].rpartition("/")[2]
    assert await lab.units(message_id) == [("discarded", "sandbox-unmatched")]


async def test_bundles_of_a_laboratory_that_is_tried_out_stay_in_the_sandbox(
    lab: Laboratory, fhir_bundle: FhirBundle
) -> None:
    await lab.add_patient()
    await configure(lab, test_mode=True)
    for meta, status in (({}, 422), ({"tag": [{"code": "HTEST"}]}, 200)):
        answer = await lab.lab.http.post(
            "/fhir/R4",
            content=json.dumps(fhir_bundle(meta=meta)).encode(),
            headers={"content-type": "application/fhir+json"},
            auth=(lab.client_id, lab.secret),
        )
        assert answer.status_code == status
    await lab.process()
    assert await lab.dispositions(interface="fhir") == {"answered": 2, "rejected": 1, "discarded": 1}


class TestCases:
    async def cases(self, lab: Laboratory) -> dict[str, str]:
        found = await lab.get(f"/v1/lab/partners/{lab.partner_id}/onboarding", ADMIN)
        assert len(found["cases"]) == 8
        return {case["name"]: case["state"] for case in found["cases"]}

    async def passed(self, lab: Laboratory) -> set[str]:
        return {name for name, state in (await self.cases(lab)).items() if state == "passed"}

    async def test_all_are_open_at_first(self, lab: Laboratory) -> None:
        assert set((await self.cases(lab)).values()) == {"open"}

    async def test_the_samples_pass_them_all(self, lab: Laboratory, sample) -> None:
        await configure(lab, test_mode=True)
        people = {
            "patient": "SANDBOX-0001",
            "patient_2": "SANDBOX-0002",
            "order": "SANDBOX-ORDER-0001",
            "order_2": "SANDBOX-ORDER-0002",
            "|P|2.5.1": "|T|2.5.1",
        }
        await lab.send(sample("panel", **people))
        assert await self.passed(lab) == {"patient-number", "order-number", "character-set"}
        for name, case in (
            ("two-patients", "several-patients"),
            ("correction", "correction"),
            ("critical", "critical-value"),
            ("windows-1251", "character-set"),
        ):
            await lab.send(sample(name, **people))
            assert case in await self.passed(lab), name
        await lab.send(sample("panel", **people))
        assert "repetition" in await self.passed(lab)
        assert "refusal" not in await self.passed(lab)
        await lab.post(sample("panel", **{**people, "ORU^R01^ORU_R01": "ADT^A01^ADT_A01"}))
        await lab.process()
        assert set((await self.cases(lab)).values()) == {"passed"}

    async def test_a_laboratory_sees_its_own_cases_and_the_sandbox(self, lab: Laboratory) -> None:
        auth = (lab.client_id, lab.secret)
        own = await lab.lab.http.get(f"/v1/lab/partners/{lab.partner_id}/onboarding", auth=auth)
        assert own.status_code == 200
        stranger = Laboratory(lab.lab, client_id="lab-other")
        await stranger.register()
        refused = await lab.lab.http.get(
            f"/v1/lab/partners/{lab.partner_id}/onboarding", auth=(stranger.client_id, stranger.secret)
        )
        assert refused.status_code == 404
        patients = (await lab.lab.http.get("/v1/lab/sandbox-patients", auth=auth)).json()["items"]
        assert patients[0]["number"] == "SANDBOX-0001"
        assert (await lab.lab.http.get("/v1/lab/sandbox-patients")).status_code == 401

    async def test_production_shows_nothing(self, lab: Laboratory, sample) -> None:
        await lab.add_patient("SANDBOX-0001")
        message_id = await lab.send(sample("panel", patient="SANDBOX-0001"))
        assert (await lab.units(message_id))[0][0] == "in-flight"
        assert await self.passed(lab) == set()
        assert (await lab.get(f"{MESSAGES}/{message_id}"))["processing_id"] == "P"
