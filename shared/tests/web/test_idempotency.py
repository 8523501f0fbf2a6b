"""The same write twice: one effect, one answer."""

import asyncio

import pytest
from clinic_shared.encryption.ciphers import Place
from clinic_shared.encryption.keyring import Keyring
from clinic_shared.errors import DomainError
from clinic_shared.idempotency import purge_expired
from clinic_shared.principal import Principal
from clinic_shared.sealing import UnknownSealError, unseal_bytes
from sqlalchemy import text


async def test_a_repeated_write_gets_the_same_answer_and_one_effect(probe, writer, query, audit_records):
    headers = probe.headers(writer, key="k-1")
    first = await probe.http.post("/v1/drafts", json={"text": "once"}, headers=headers)
    again = await probe.http.post("/v1/drafts", json={"text": "once"}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for name in ("etag", "location", "content-type"):
        assert again.headers[name] == first.headers[name]
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert again.headers.get_list("content-type") == ["application/json"]
    assert await query("SELECT text FROM note") == [("once",)]
    assert len(await audit_records()) == 1


async def test_a_key_for_another_body_path_or_query_is_refused(probe, writer, query):
    headers = probe.headers(writer, key="k-1")
    await probe.http.post("/v1/answers/200", headers=headers)
    for url in ("/v1/answers/201", "/v1/answers/200?a=b"):
        answer = await probe.http.post(url, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["type"] == "/problems/idempotency-key-reused"
    assert (await probe.http.post("/v1/answers/200", json={}, headers=headers)).status_code == 422
    assert await query("SELECT count(*) FROM note") == [(1,)]


async def test_concurrent_repeats_wait_for_the_first_and_answer_the_same(probe, writer, query):
    headers = probe.headers(writer, key="k-1")
    answers = await asyncio.gather(
        *(probe.http.post("/v1/notes", json={"text": "once"}, headers=headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replay" in answer.headers for answer in answers) == 7
    assert await query("SELECT count(*) FROM note") == [(1,)]


async def test_after_a_failure_the_key_is_free(probe, writer, query):
    headers = probe.headers(writer, key="k-1")
    url = "/v1/notes/broken"
    assert (await probe.http.post(url, json={"text": "x"}, headers=headers)).status_code == 500
    assert await query("SELECT 1 FROM idempotency_key") == []
    assert (await probe.http.post(url, json={"text": "other"}, headers=headers)).status_code == 500


async def test_an_answer_that_is_not_a_success_is_not_kept(probe, writer, query):
    headers = probe.headers(writer, key="k-1")
    assert (await probe.http.post("/v1/answers/404", headers=headers)).status_code == 404
    assert await query("SELECT 1 FROM idempotency_key") == []
    assert (await probe.http.post("/v1/answers/200", headers=headers)).status_code == 200


async def test_a_key_belongs_to_one_caller_and_one_route(probe, writer, query):
    other = Principal(subject=writer.patient_id or writer.subject.__class__(int=5), kind="staff",
                      scopes=writer.scopes)  # fmt: skip
    for principal, url, words in (
        (writer, "/v1/notes", "a"), (other, "/v1/notes", "b"), (writer, "/v1/drafts", "c"),
    ):  # fmt: skip
        answer = await probe.http.post(url, json={"text": words}, headers=probe.headers(principal, key="k"))
        assert answer.status_code == 201
    assert await query("SELECT count(*) FROM note") == [(3,)]


async def test_a_replay_needs_the_permission_still(probe, writer, reader):
    headers = probe.headers(writer, key="k")
    await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    demoted = Principal(subject=writer.subject, kind="staff", scopes=reader.scopes)
    answer = await probe.http.post("/v1/notes", json={"text": "a"}, headers=probe.headers(demoted, key="k"))
    assert answer.status_code == 403


async def test_where_a_key_is_required_its_absence_is_told(probe, writer, query):
    headers = {"Authorization": probe.headers(writer)["Authorization"]}
    answer = await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/idempotency-key-required")
    assert (await probe.http.post("/v1/drafts", json={"text": "a"}, headers=headers)).status_code == 201
    assert await query("SELECT 1 FROM idempotency_key") == []


@pytest.mark.parametrize("key", ["", "a" * 256, "a b", "\x7f", "ключ".encode()])
async def test_a_key_has_up_to_255_printable_characters(probe, writer, key):
    headers = {**probe.headers(writer), "Idempotency-Key": key}
    answer = await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/idempotency-key-invalid")


async def test_two_keys_are_refused(probe, writer):
    headers = [*probe.headers(writer).items(), ("Idempotency-Key", "another")]
    assert (await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)).status_code == 400


async def test_a_key_is_free_again_after_a_day_and_gets_swept(probe, writer, query):
    headers = probe.headers(writer, key="k")
    await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    async with probe.runtime.database.transaction() as transaction:
        await transaction.execute(text("UPDATE idempotency_key SET created_at = now() - interval '25 hours'"))
    later = await probe.http.post("/v1/notes", json={"text": "b"}, headers=headers)
    assert later.status_code == 201
    assert "idempotent-replay" not in later.headers
    async with probe.runtime.database.transaction() as transaction:
        assert await purge_expired(transaction) == 0
        await transaction.execute(text("UPDATE idempotency_key SET created_at = now() - interval '25 hours'"))
        assert await purge_expired(transaction) == 1


async def test_answers_are_kept_encrypted(probe, writer, query):
    headers = probe.headers(writer)
    first = await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    [(body,)] = await query("SELECT body FROM idempotency_key")
    assert b"note_id" not in bytes(body)
    again = await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    assert again.content == first.content


async def test_an_answer_that_the_release_before_kept_is_given_again(probe, writer, query):
    headers, keyring = probe.headers(writer), probe.runtime.database.keyring
    keyring.encrypting = False
    first = await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    [(body,)] = await query("SELECT body FROM idempotency_key")
    assert bytes(body) == b"\x00" + first.content
    keyring.encrypting = True
    again = await probe.http.post("/v1/notes", json={"text": "a"}, headers=headers)
    assert again.content == first.content


def test_a_seal_of_a_later_release_is_not_guessed_at():
    with pytest.raises(UnknownSealError):
        unseal_bytes(Keyring(), Place("notes", "idempotency_key", "1"), b"\x09{}")


def test_the_errors_of_keys_are_domain_errors():
    slugs = {error.slug for error in DomainError.__subclasses__()}
    assert {"idempotency-key-required", "idempotency-key-invalid", "idempotency-key-reused"} <= slugs
