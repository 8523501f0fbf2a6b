"""What a body may be, and JSON without surprises."""

import json

import pytest
from clinic_shared import strict_json
from clinic_shared.limits import DEFAULT_MAX_BODY_BYTES
from hypothesis import given
from hypothesis import strategies as st

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\0")), children, max_size=4),
    max_leaves=20,
)  # fmt: skip

REFUSED = {
    "duplicate keys": b'{"a":1,"a":2}',
    "duplicate keys deep inside": b'[{"b":{"a":1,"\\u0061":2}}]',
    "NaN": b'{"a":NaN}',
    "Infinity": b"[-Infinity]",
    "overflow": b"[1e400]",
    "huge integer": b"[" + b"9" * 5000 + b"]",
    "NUL": b'["\\u0000"]',
    "NUL in a key": b'{"a\\u0000":1}',
    "raw NUL": b'["\x00"]',
    "lone surrogate": b'["\\ud800"]',
    "lone surrogate, upper case": b'["\\uDC00"]',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"a":1}',
    "Latin-1": b'["\xe9"]',
    "encoded surrogate": b'["\xed\xa0\x80"]',
    "33 deep": b"[" * 33 + b"]" * 33,
    "100,000 deep": b"[" * 100_000,
    "deep among many": b'{"a":[' + b"[]," * 40 + b"[" * 40 + b"]" * 40 + b"]}",
    "single quotes": b"{'a':1}",
    "trailing comma": b"[1,]",
    "two values": b"1 2",
    "nothing but space": b"  ",
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_json_with_surprises_is_refused(body):
    with pytest.raises(strict_json.StrictJSONError):
        strict_json.loads(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 32 + b"]" * 32,
        b'["\\\\u0000"]',
        b'["\\ud83d\\ude00"]',
        b"[" + b"{}," * 99 + b"{}]",
        b"0",
        b'" "',
    ],
)
def test_json_that_only_looks_odd_is_read(body):
    assert strict_json.loads(body) == json.loads(body)


@given(JSON_VALUES)
def test_whatever_is_written_is_read_back(value):
    assert strict_json.loads(strict_json.dumps(value)) == value


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_read_as_json_reads_them_or_refused(body):
    try:
        value = strict_json.loads(body)
    except strict_json.StrictJSONError:
        return
    assert value == json.loads(body)


async def _post(probe, principal, content, **headers):
    headers = {"Content-Type": "application/json", **probe.headers(principal), **headers}
    return await probe.http.post("/v1/notes", content=content, headers=headers)


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
async def test_a_body_with_surprises_is_answered_with_400(probe, writer, body):
    answer = await _post(probe, writer, body)
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-json")


async def test_a_large_body_is_refused(probe, writer):
    answer = await _post(probe, writer, b'{"text":"' + b"x" * DEFAULT_MAX_BODY_BYTES + b'"}')
    assert (answer.status_code, answer.json()["max_bytes"]) == (413, DEFAULT_MAX_BODY_BYTES)


async def test_a_large_body_of_undeclared_length_is_read_no_further_than_its_limit(probe, writer):
    sent = 0

    async def endless():
        nonlocal sent
        while True:
            sent += 1
            yield b" " * 65536

    answer = await _post(probe, writer, endless())
    assert answer.status_code == 413
    assert sent <= DEFAULT_MAX_BODY_BYTES // 65536 + 2


async def test_strangers_cannot_make_a_service_read(probe):
    asked = []

    async def body():
        asked.append(True)
        yield b"{}"

    answer = await probe.http.post("/v1/notes", content=body(), headers={"Authorization": "Bearer x"})
    assert (answer.status_code, asked) == (401, [])


async def test_a_route_has_its_own_limit_and_media_types(probe):
    small = await probe.http.post(
        "/v1/hl7", content=b"x" * 64, headers={"Content-Type": "Text/Plain; charset=koi8-r"}
    )
    large = await probe.http.post("/v1/hl7", content=b"x" * 65, headers={"Content-Type": "text/plain"})
    json_body = await probe.http.post("/v1/hl7", json={})
    assert (small.status_code, large.status_code, json_body.status_code) == (200, 413, 415)
    assert json_body.json()["supported"] == ["application/hl7-v2", "text/plain"]


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
     "application/json; charset=utf-16", "application/json;charset=latin1", "", "application/jsonx"],
)  # fmt: skip
async def test_other_media_types_are_refused(probe, writer, content_type):
    answer = await _post(probe, writer, b'{"text":"a"}', **{"Content-Type": content_type})
    assert (answer.status_code, answer.json()["type"]) == (415, "/problems/unsupported-media-type")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=UTF-8", "Application/JSON", 'application/json;charset="utf-8"'],
)
async def test_json_may_say_that_it_is_utf_8(probe, writer, content_type):
    assert (await _post(probe, writer, b'{"text":"a"}', **{"Content-Type": content_type})).status_code == 201


async def test_a_compressed_body_is_refused(probe, writer):
    answer = await _post(probe, writer, b'{"text":"a"}', **{"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("url", ["/v1/notes?cursor=%00", "/v1/notes/%00"])
async def test_nul_characters_in_the_url_are_refused(probe, writer, url):
    answer = await probe.http.get(url, headers=probe.headers(writer))
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/invalid-url")
