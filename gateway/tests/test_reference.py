"""The reference pages: whole, true to the contracts, and readable where no network is."""

import re
from html.parser import HTMLParser

import pytest
from clinic_gateway.reference import References, fields, kind_of
from clinic_shared import contracts
from clinic_shared.contracts import CONTRACTS_DIR

from .conftest import StartClinic

NAMES = list(contracts.load().services)
ASYNCAPI = (CONTRACTS_DIR / "asyncapi.yaml").read_text(encoding="utf-8")


class Links(HTMLParser):
    """What a page would load or lead to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.hrefs: list[str] = []
        self.ids: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids |= {found["id"]} & {found.get("id")} if "id" in found else set()
        if tag in {"script", "link", "img", "iframe"}:
            self.loaded.append(tag)
        elif tag == "a":
            self.hrefs.append(found["href"])


@pytest.mark.parametrize("path", ["/docs", "/docs/events", "/problems"])
async def test_a_page_needs_nothing_from_elsewhere(start_clinic: StartClinic, path: str) -> None:
    async with start_clinic(*NAMES, contracts_dir=CONTRACTS_DIR) as clinic:
        answer = await clinic.http.get(path)
        links = Links(answer.text)
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert links.loaded == []
        for href in dict.fromkeys(links.hrefs):
            if href.startswith("#"):
                assert href[1:] in links.ids or href == "#operations"
            else:
                assert (await clinic.http.get(href)).status_code == 200, href


async def test_every_event_is_on_its_page_with_who_keeps_it(start_clinic: StartClinic) -> None:
    async with start_clinic(contracts_dir=CONTRACTS_DIR) as clinic:
        text = (await clinic.http.get("/docs/events")).text
        raw = await clinic.http.get("/asyncapi.yaml")
    for event in contracts.load().events.values():
        start = text.index(f"<details id='{event.type}'>")
        described = text[start : text.index("</details>", start)]
        assert ", ".join(event.consumers) in described
        for name in contracts.load().examples(event.type)[0]["data"]:
            assert f"<code>{name}</code>" in described
    assert raw.text == ASYNCAPI


async def test_operations_show_fields_answers_and_what_they_need(start_clinic: StartClinic) -> None:
    async with start_clinic(*NAMES, contracts_dir=CONTRACTS_DIR) as clinic:
        text = (await clinic.http.get("/docs")).text
    start = text.index("<code>/v1/appointments</code> Book")
    booking = text[start : text.index("</details>", start)]
    assert re.search(r"<code>practitioner_id</code><td>uuid", booking)
    assert "appointments.book" in booking
    assert "Answer 201" in booking
    assert "<code>starts_at</code><td>date-time<td>required" in booking


def test_a_type_is_told_in_words() -> None:
    references = References({"$defs": {"id": {"type": "string", "format": "uuid"}}})
    identifier = {"$ref": "#/$defs/id"}
    assert kind_of(identifier, references) == "uuid"
    assert kind_of({"anyOf": [identifier, {"type": "null"}]}, references) == "uuid or null"
    assert kind_of({"type": "array", "items": identifier}, references) == "list of uuid"
    assert kind_of({"enum": ["open", None]}, references) == '"open" or null'
    assert kind_of({"type": ["integer", "null"]}, references) == "integer or null"


def test_a_schema_that_holds_itself_ends() -> None:
    document = {"$defs": {"node": {"properties": {"child": {"$ref": "#/$defs/node"}}}}}
    table = fields({"$ref": "#/$defs/node"}, References(document))
    assert table.count("<code>child") == 4
