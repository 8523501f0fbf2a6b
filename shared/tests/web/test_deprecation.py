"""What a client of an operation on its way out is told."""

from clinic_shared.app import create_app
from clinic_shared.metrics import REGISTRY


async def test_every_answer_says_since_when_until_when_and_what_instead(probe, reader):
    answer = await probe.http.get("/v1/memos", headers=probe.headers(reader))
    assert answer.status_code == 200
    assert answer.headers["deprecation"] == "@1767225600"  # RFC 9745, 2.1: an instant, 2026-01-01T00:00:00Z
    assert answer.headers["sunset"] == "Fri, 01 Jan 2027 00:00:00 GMT"  # RFC 8594, 3
    assert answer.headers["link"] == '</v1/notes>; rel="successor-version"'
    other = await probe.http.get("/v1/notes", headers=probe.headers(reader))
    assert not {"deprecation", "sunset", "link"} & set(other.headers)


async def test_who_still_calls_it_is_counted(probe, reader):
    def calls() -> float:
        return REGISTRY.get_sample_value("clinic_deprecated_calls_total", {"route": "GET /v1/memos"}) or 0

    before = calls()
    await probe.http.get("/v1/memos", headers=probe.headers(reader))
    assert calls() == before + 1


async def test_the_description_marks_it(probe):
    paths = create_app(probe.service, probe.runtime).openapi()["paths"]
    assert paths["/v1/memos"]["get"]["deprecated"]
    assert "deprecated" not in paths["/v1/notes"]["get"]
