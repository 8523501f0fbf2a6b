"""Permissions, transactions, versions and pages, through HTTP and a real database."""

import asyncio
from uuid import UUID

import pytest
from clinic_shared.app import create_app, undeclared_routes
from clinic_shared.ids import uuid7
from clinic_shared.principal import Principal
from clinic_shared.routing import AUTHENTICATED, PUBLIC, ClinicRouter, Idempotency, Tx


async def test_a_route_without_a_token_is_refused(probe):
    answer = await probe.http.get("/v1/notes")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["type"] == "/problems/unauthenticated"


@pytest.mark.parametrize(
    "authorization",
    ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "bearer x", "Bearer x y", "Token x", "", "Bearer \x7f"],
)
async def test_an_authorization_header_of_another_form_is_refused(probe, authorization):
    answer = await probe.http.get("/v1/me", headers={"Authorization": authorization})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_two_authorization_headers_are_refused(probe, writer):
    token = probe.token(writer)
    headers = [("Authorization", f"Bearer {token}"), ("Authorization", f"Bearer {token}")]
    assert (await probe.http.get("/v1/me", headers=headers)).status_code == 401


async def test_a_token_in_the_query_string_is_ignored(probe, writer):
    answer = await probe.http.get("/v1/me", params={"access_token": probe.token(writer)})
    assert answer.status_code == 401


async def test_a_missing_scope_is_refused_and_the_refusal_is_audited(probe, reader, query, audit_records):
    answer = await probe.http.post("/v1/notes", json={"text": "x"}, headers=probe.headers(reader))
    assert answer.status_code == 403
    assert answer.json()["permission"] == "notes.write"
    assert await query("SELECT 1 FROM note") == []
    [record] = await audit_records()
    assert record["outcome"] == "4"
    assert record["agent"]["who"] == str(reader.subject)
    assert record["entity"] == {"type": "Operation", "id": "write_note"}
    assert record["details"] == {"permission": "notes.write"}


async def test_a_refusal_by_place_rolls_the_act_back_and_is_audited(probe, writer, query, audit_records):
    answer = await probe.http.delete(f"/v1/centres/{uuid7()}", headers=probe.headers(writer))
    assert answer.status_code == 403
    assert await query("SELECT 1 FROM note") == []
    assert [record["outcome"] for record in await audit_records()] == ["4"]


async def test_another_patients_data_answers_like_nothing_there_but_is_audited(probe, audit_records):
    patient = Principal(subject=uuid7(), kind="patient", patient_id=uuid7(), scopes=frozenset({"notes.read"}))
    own = await probe.http.get(f"/v1/patients/{patient.patient_id}", headers=probe.headers(patient))
    assert own.status_code == 200
    foreign = await probe.http.get(f"/v1/patients/{uuid7()}", headers=probe.headers(patient))
    absent = await probe.http.get(f"/v1/notes/{uuid7()}", headers=probe.headers(patient))
    assert foreign.status_code == absent.status_code == 404
    varying = {"instance", "request_id"}
    assert {k: v for k, v in foreign.json().items() if k not in varying} == {
        k: v for k, v in absent.json().items() if k not in varying
    }
    assert [record["reason"] for record in await audit_records()] == ["concealed"]


async def test_any_verified_caller_may_use_a_route_for_the_authenticated(probe, reader):
    answer = await probe.http.get("/v1/me", headers=probe.headers(reader))
    assert answer.json()["subject"] == str(reader.subject)


async def test_a_public_route_is_called_by_nobody(probe):
    answer = await probe.http.post(
        "/v1/hl7", content=b"MSH|^~\\&|", headers={"Content-Type": "application/hl7-v2"}
    )
    assert answer.json() == {"bytes": "9", "caller": "anonymous", "service": "probe"}


async def test_state_and_audit_commit_together(probe, writer, query, audit_records):
    answer = await probe.http.post("/v1/notes", json={"text": "kept"}, headers=probe.headers(writer))
    assert answer.status_code == 201
    assert await query("SELECT text FROM note") == [("kept",)]
    [record] = await audit_records()
    assert record["entity"]["id"] == answer.json()["note_id"]


async def test_a_domain_error_rolls_everything_back(probe, writer, query, audit_records):
    answer = await probe.http.post("/v1/notes/full", json={"text": "x"}, headers=probe.headers(writer))
    assert answer.status_code == 409
    assert await query("SELECT 1 FROM note UNION ALL SELECT 1 FROM idempotency_key") == []
    assert await audit_records() == []


async def test_a_failing_commit_is_answered_with_500_and_stores_nothing(probe, writer, query, audit_records):
    first = await probe.http.post("/v1/notes", json={"text": "same"}, headers=probe.headers(writer))
    second = await probe.http.post("/v1/notes", json={"text": "same"}, headers=probe.headers(writer))
    assert (first.status_code, second.status_code) == (201, 500)
    assert await query("SELECT count(*) FROM note") == [(1,)]
    assert len(await audit_records()) == 1


async def test_what_is_answered_is_committed_already(probe, writer, query):
    """Looked at from another connection while the answer is on its way, byte one."""
    seen = []

    async def send(message):
        if message["type"] == "http.response.start":
            seen.append(await query("SELECT text FROM note"))

    headers = {**probe.headers(writer), "Content-Type": "application/json"}
    scope = {
        "type": "http", "method": "POST", "path": "/v1/notes", "query_string": b"", "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in headers.items()],
    }  # fmt: skip

    async def receive():
        return {"type": "http.request", "body": b'{"text":"early"}'}

    await create_app(probe.service, probe.runtime)(scope, receive, send)
    assert seen == [[("early",)]]


async def test_answers_of_one_resource_carry_its_version_as_etag(probe, writer):
    made = await probe.http.post("/v1/notes", json={"text": "a"}, headers=probe.headers(writer))
    assert made.headers["etag"] == '"1"'
    url = f"/v1/notes/{made.json()['note_id']}"
    headers = probe.headers(writer)
    changed = await probe.http.put(url, json={"text": "b"}, headers={**headers, "If-Match": '"1"'})
    assert changed.headers["etag"] == '"2"'
    late = await probe.http.put(url, json={"text": "c"}, headers={**headers, "If-Match": '"1"'})
    assert late.status_code == 412
    assert "etag" not in (await probe.http.get("/v1/notes", headers=headers)).headers


@pytest.mark.parametrize("if_match", [None, "*"])
async def test_a_change_without_a_version_is_asked_for_one(probe, writer, if_match):
    headers = probe.headers(writer) | ({"If-Match": if_match} if if_match else {})
    answer = await probe.http.put(f"/v1/notes/{uuid7()}", json={"text": "b"}, headers=headers)
    assert answer.status_code == 428


@pytest.mark.parametrize("if_match", ["7", 'W/"7"', '"7", "8"', '"x"', '"-1"', '"9999999999999999999"'])
async def test_an_entity_tag_that_is_not_ours_is_refused(probe, writer, if_match):
    headers = {**probe.headers(writer), "If-Match": if_match}
    answer = await probe.http.put(f"/v1/notes/{uuid7()}", json={"text": "b"}, headers=headers)
    assert answer.status_code == 422


async def test_pages_show_every_row_once(probe, writer):
    for number in range(5):
        await probe.http.post("/v1/drafts", json={"text": f"note {number}"}, headers=probe.headers(writer))
    headers, seen, cursor = probe.headers(writer), [], None
    while True:
        parameters = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await probe.http.get("/v1/notes", params=parameters, headers=headers)).json()
        assert len(page["items"]) <= 2
        seen += [note["text"] for note in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == [f"note {number}" for number in range(5)]


@pytest.mark.parametrize(
    "cursor", ["x", "é", "W10", "WzFd", "bnVsbA", "eyJhIjoxfQ", "A" * 513, "=", "W" * 400]
)
async def test_an_invented_cursor_is_refused(probe, writer, cursor):
    answer = await probe.http.get("/v1/notes", params={"cursor": cursor}, headers=probe.headers(writer))
    assert answer.status_code == 422


@pytest.mark.parametrize("limit", [0, 201, -1, "x"])
async def test_a_page_has_one_to_two_hundred_rows(probe, writer, limit):
    answer = await probe.http.get("/v1/notes", params={"limit": limit}, headers=probe.headers(writer))
    assert answer.status_code == 422


def test_a_route_without_a_permission_cannot_be_written():
    router = ClinicRouter()
    with pytest.raises(TypeError, match="permission"):
        router.get("/open")  # type: ignore[call-arg]  # the point
    for nothing in ("", None):
        with pytest.raises(TypeError, match="declare a scope"):
            router.get("/open", permission=nothing)  # type: ignore[arg-type]  # the point


def test_a_route_without_a_transaction_cannot_ask_for_one():
    router = ClinicRouter()

    async def endpoint(tx: Tx) -> None:
        pass

    with pytest.raises(TypeError, match="can't ask for Tx"):
        router.get("/x", permission="a.b", transactional=False)(endpoint)


@pytest.mark.parametrize("options", [{"permission": PUBLIC}, {"permission": "a", "transactional": False}])
def test_idempotency_needs_a_caller_and_a_transaction(options):
    async def endpoint() -> None:
        pass

    with pytest.raises(TypeError, match="idempotency needs"):
        ClinicRouter().post("/x", idempotency=Idempotency.REQUIRED, **options)(endpoint)


def test_writes_take_keys_by_default_and_reads_do_not():
    router = ClinicRouter()

    async def endpoint() -> None:
        pass

    router.post("/a", permission="a.b")(endpoint)
    router.post("/b", permission=PUBLIC)(endpoint)
    router.post("/c", permission=AUTHENTICATED, transactional=False)(endpoint)
    router.get("/d", permission="a.b")(endpoint)
    modes = [route.idempotency_mode for route in router.routes]
    assert modes == [Idempotency.ACCEPTED, Idempotency.NONE, Idempotency.NONE, Idempotency.NONE]


async def test_no_route_is_open_that_nobody_declared(probe):
    app = create_app(probe.service, probe.runtime)
    assert undeclared_routes(app) == []

    @app.get("/forgotten")
    async def forgotten() -> None:
        pass

    assert undeclared_routes(app) == ["/forgotten"]


async def test_concurrent_requests_keep_their_own_transactions(probe, writer, query):
    answers = await asyncio.gather(
        *(
            probe.http.post("/v1/notes", json={"text": f"n{number}"}, headers=probe.headers(writer))
            for number in range(20)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    stored = {(UUID(answer.json()["note_id"]), answer.json()["text"]) for answer in answers}
    assert set(await query("SELECT note_id, text FROM note")) == stored
