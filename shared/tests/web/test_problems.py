"""Errors on the wire: problem+json, which never repeats what the caller sent."""

import json
from uuid import UUID, uuid4

import psycopg
import pytest
from clinic_shared import problems
from clinic_shared.app import create_app
from clinic_shared.errors import DomainError, ReferenceNotYetKnownError
from clinic_shared.problem_pages import PROBLEMS, problem_pages
from clinic_shared.routing import ClinicRouter, Tx
from clinic_shared.service import Service
from httpx import ASGITransport, AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

CANARY = "Kanareikina"
REQUIRED_MEMBERS = {"type", "title", "status", "detail", "instance", "request_id"}


def assert_problem(answer, status, slug):
    document = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert document.keys() >= REQUIRED_MEMBERS
    assert (answer.status_code, document["status"], document["type"]) == (status, status, f"/problems/{slug}")
    assert answer.headers["x-request-id"] == document["request_id"]
    assert document["instance"] == f"urn:uuid:{UUID(document['request_id'])}"
    return document


async def test_a_domain_error_is_told_with_its_extensions(probe, writer):
    answer = await probe.http.post("/v1/notes/full", json={"text": "x"}, headers=probe.headers(writer))
    document = assert_problem(answer, 409, "notes-full")
    assert document["detail"] == "There are ten already."
    assert (document["limit"], document["note_id"]) == (10, str(UUID(int=7)))


async def test_an_unexpected_error_is_told_without_a_word_about_it(probe, writer, capfd):
    answer = await probe.http.post("/v1/notes/broken", json={"text": CANARY}, headers=probe.headers(writer))
    document = assert_problem(answer, 500, "unexpected")
    assert document.keys() == REQUIRED_MEMBERS
    output = capfd.readouterr()
    assert "RuntimeError" in output.out
    assert CANARY not in answer.text + output.out + output.err


async def test_unknown_paths_and_methods_are_problems(probe):
    assert_problem(await probe.http.get(f"/v1/{CANARY}"), 404, "not-found")
    answer = await probe.http.patch("/v1/me")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "GET"


async def test_a_validation_error_names_place_and_rule(probe, writer):
    answer = await probe.http.post(
        "/v1/notes", json={"kind": "wild", "patient_id": "x", "labels": {"a": "b"}, CANARY: 1},
        headers=probe.headers(writer),
    )  # fmt: skip
    document = assert_problem(answer, 422, "invalid-request")
    assert sorted((e["in"], e["pointer"], e["code"]) for e in document["errors"]) == [
        ("body", "/*", "extra_forbidden"),
        ("body", "/kind", "string_pattern_mismatch"),
        ("body", "/labels/*", "int_parsing"),
        ("body", "/patient_id", "uuid_parsing"),
        ("body", "/text", "missing"),
    ]
    assert CANARY not in answer.text


async def test_path_and_query_are_judged_too(probe, writer):
    answer = await probe.http.get("/v1/notes?limit=1000", headers=probe.headers(writer))
    [violation] = assert_problem(answer, 422, "invalid-request")["errors"]
    assert violation == {
        "in": "query", "pointer": "/limit", "code": "less_than_equal",
        "message": "Input should be less than or equal to 200",
    }  # fmt: skip
    answer = await probe.http.get(f"/v1/notes/{CANARY}", headers=probe.headers(writer))
    [violation] = assert_problem(answer, 422, "invalid-request")["errors"]
    assert (violation["in"], violation["pointer"]) == ("path", "/note_id")


def _with_canary(children):
    return st.lists(children, max_size=3) | st.dictionaries(
        st.sampled_from(["text", "kind", "patient_id", "labels", CANARY, f"{CANARY}/~"]), children, max_size=5
    )


BODIES = st.recursive(
    st.sampled_from(
        [CANARY, f"\x01{CANARY}", f"2026-01-01T00:00:00{CANARY}", f"{uuid4()}{CANARY}", 1, None, True, 0.5]
    ),
    _with_canary,
    max_leaves=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=BODIES)
async def test_a_problem_never_repeats_what_was_sent(probe, reader, writer, body):
    content = json.dumps(body).encode()
    headers = {**probe.headers(writer), "Content-Type": "application/json"}
    for url in ("/v1/notes/full", f"/v1/notes/{CANARY}", f"/v1/notes?limit={CANARY}&cursor={CANARY}"):
        for method in ("POST", "PUT", "GET", CANARY):
            sent = {**headers, "If-Match": f'"{CANARY}"', "X-Request-Id": CANARY, "X-Correlation-Id": CANARY}
            answer = await probe.http.request(method, url, content=content, headers=sent)
            assert answer.status_code in {201, 404, 405, 409, 422, 500}
            assert CANARY not in str(answer.headers)
            if answer.status_code != 201:
                assert CANARY not in answer.text


class ReservedError(DomainError):
    """Its extensions bear names of RFC 9457's own members."""

    slug = "reserved"


def test_extensions_cannot_replace_the_standard_members():
    answer = problems.domain_problem(
        {"type": "http"}, ReservedError("d", status=200, type="x", title="y", a=1)
    )
    document = json.loads(bytes(answer.body))
    assert (document["status"], document["type"], document["a"]) == (409, "/problems/reserved", 1)


def test_what_may_be_tried_again_says_when():
    answer = problems.domain_problem({"type": "http"}, ReferenceNotYetKnownError())
    assert answer.headers["retry-after"] == "1"


def test_every_problem_has_a_page():
    for slug, page in problem_pages().items():
        assert page.cause, slug
        assert 400 <= page.status < 600, slug
    assert PROBLEMS.keys() <= problem_pages().keys()
    assert problem_pages()["notes-full"].fix == "Remove one first."


def test_the_slugs_of_domain_errors_agree_with_their_pages():
    errors: list[type[DomainError]] = [DomainError, *DomainError.__subclasses__()]
    for error in errors:
        page = PROBLEMS.get(error.slug)
        if page is not None:
            assert (page.title, page.status) == (error.title, error.status), error


async def test_a_violated_constraint_is_named(probe):
    twice = text("INSERT INTO note VALUES (:id, 'x'), (:id, 'y')")
    async with probe.runtime.database.engine.connect() as connection:
        with pytest.raises(IntegrityError) as caught:
            await connection.execute(twice, {"id": uuid4()})
    assert problems.constraint_of(caught.value) == "note_pkey"


@pytest.fixture
def failing(probe):
    """Return a client of an application whose one route runs the statement it is given."""
    router = ClinicRouter()
    statements: list[str] = []

    @router.get("/fail", permission="notes.read")
    async def fail(tx: Tx) -> None:
        await tx.execute(text(statements[0]))

    service = Service(
        name="failing",
        package_dir=probe.service.package_dir,
        routers=(router,),
        handlers=probe.service.handlers,
    )
    client = AsyncClient(
        transport=ASGITransport(create_app(service, probe.runtime)), base_url="http://service.test"
    )
    return client, statements


@pytest.mark.parametrize(
    "statement",
    ["SELECT pg_terminate_backend(pg_backend_pid())", "SET statement_timeout = 1; SELECT pg_sleep(1)",
     "DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$", "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"],
)  # fmt: skip
async def test_an_outage_of_the_database_is_temporary(probe, reader, failing, statement):
    client, statements = failing
    statements.append(statement)
    answer = await client.get("/fail", headers=probe.headers(reader))
    assert_problem(answer, 503, "temporarily-unavailable")
    assert int(answer.headers["retry-after"]) >= 1
    # One statement's bad luck must not close the door to the whole service.
    assert ("x-clinic-unavailable" in answer.headers) == ("terminate" in statement)


async def test_a_defect_in_sql_is_not_an_outage(probe, reader, failing):
    client, statements = failing
    statements.append("SELECT nothing FROM nowhere")
    answer = await client.get("/fail", headers=probe.headers(reader))
    assert_problem(answer, 500, "unexpected")


def test_drivers_own_outages_are_mapped(probe):
    handlers = create_app(probe.service, probe.runtime).exception_handlers
    assert {psycopg.OperationalError, psycopg.InterfaceError} <= handlers.keys()
