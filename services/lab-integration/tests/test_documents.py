"""Documents that laboratories embed in results: listed with their version, opened, and gone with a retraction."""

import base64

import pytest

from .conftest import Laboratory

PDF = b"%PDF-1.7 fictitious"


@pytest.fixture
def message(compose):
    def build(status: str = "F", *, control_id: str = "M-1", value: str | None = None) -> bytes:
        document = value or f"LIS^AP^PDF^Base64^{base64.b64encode(PDF).decode()}"
        return compose(
            "PID|1||MRN-1^^^POLYCLINIC^MR",
            "OBR|1||F-1|18717-9^Report^LN|||||||||||||||||||||F",
            "OBX|1|NM|2345-7^Glucose^LN||5.10|mmol/L|||||" + status,
            f"OBX|2|ED|PDF^Scan of the report^L||{document}||||||{status}",
            msh={10: control_id},
        )

    return build


async def result_of(lab: Laboratory, patient_id) -> str:
    [result] = await lab.results(patient_id)
    return str(result["result_id"])


async def test_an_embedded_document_is_listed_and_opened(lab: Laboratory, message) -> None:
    patient_id = await lab.add_patient()
    await lab.send(message())
    path = f"/v1/lab/results/{await result_of(lab, patient_id)}/documents"
    [listed] = (await lab.get(path))["items"]
    assert (listed["title"], listed["media_type"], listed["size"]) == (
        "Scan of the report",
        "application/pdf",
        len(PDF),
    )
    answer = await lab.lab.http.get(f"{path}/{listed['document_id']}", headers=lab.headers())
    assert (answer.content, answer.headers["content-type"]) == (PDF, "application/pdf")
    assert answer.headers["content-disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("value", "media_type", "content"),
    [
        ("LIS^Image^PNG^Hex^89504E47", "image/png", b"\x89PNG"),
        ("LIS^TEXT^PLAIN^A^as it is", "text/plain", b"as it is"),
        ("LIS^AP^PDF^Base64^%%%", "application/pdf", b"%%%"),
        ("LIS^TEXT^HTML^A^<script>", "application/octet-stream", b"<script>"),
        ("^application^pdf^Base64^JVBERg==", "application/pdf", b"%PDF"),
    ],
)
async def test_documents_of_every_encoding_are_decoded(
    lab: Laboratory, message, value, media_type, content
) -> None:
    patient_id = await lab.add_patient()
    await lab.send(message(value=value))
    path = f"/v1/lab/results/{await result_of(lab, patient_id)}/documents/1.1"
    answer = await lab.lab.http.get(path, headers=lab.headers())
    assert answer.headers["content-type"].partition(";")[0] == media_type
    assert answer.content == content


async def test_each_version_has_its_own(lab: Laboratory, message) -> None:
    patient_id = await lab.add_patient()
    await lab.send(message())
    await lab.send(message("C", control_id="M-2", value="LIS^AP^PDF^A^corrected"))
    listed = (await lab.get(f"/v1/lab/results/{await result_of(lab, patient_id)}/documents"))["items"]
    assert [(d["document_id"], d["result_version"]) for d in listed] == [("2.1", 2), ("1.1", 1)]


async def test_of_what_was_withdrawn_nothing_is_shown(lab: Laboratory, message) -> None:
    patient_id = await lab.add_patient()
    await lab.send(message())
    result_id = await result_of(lab, patient_id)
    await lab.send(message("W", control_id="M-2"))
    assert (await lab.get(f"/v1/lab/results/{result_id}/documents"))["items"] == []
    refused = await lab.lab.http.get(f"/v1/lab/results/{result_id}/documents/1.1", headers=lab.headers())
    assert refused.status_code == 404


async def test_others_may_not(lab: Laboratory, message) -> None:
    patient_id = await lab.add_patient()
    await lab.send(message())
    path = f"/v1/lab/results/{await result_of(lab, patient_id)}/documents"
    assert (await lab.lab.http.get(path)).status_code == 401
    assert (await lab.lab.http.get(path, headers=lab.headers("lab"))).status_code == 403
    other = lab.headers("patient", patient_id=lab.partner_id)
    assert (await lab.lab.http.get(path, headers=other)).status_code in {403, 404}


async def test_segments_that_nobody_reads_are_listed_with_the_message(lab: Laboratory, compose) -> None:
    message_id = await lab.send(compose("OBR|1", "ZXX|local", "DG1|1"))
    assert (await lab.get(f"/v1/lab/messages/{message_id}"))["unread_segments"] == ["DG1", "ZXX"]
