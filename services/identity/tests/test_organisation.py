"""Centres and departments over HTTP, and the events that tell others."""

import asyncio

from clinic_shared.ids import uuid7

from .conftest import Network


async def test_a_centre_is_opened_with_its_legal_entity(network: Network) -> None:
    opened = await network.open_centre()
    assert opened["legal_entity_name"] == "Test Clinic Ltd"
    [event] = await network.identity.events("identity.centre-opened.v1")
    assert str(event.subject) == opened["centre_id"]
    assert event.data["time_zone"] == "Europe/Moscow"
    assert event.data["legal_entity_id"] == opened["legal_entity_id"]
    read = await network.get(f"/v1/centres/{opened['centre_id']}")
    assert (read.status_code, read.headers["ETag"], read.json()) == (200, '"1"', opened)


async def test_a_legal_entity_may_have_several_centres(network: Network) -> None:
    first = await network.open_centre()
    again = {"legal_entity": None, "legal_entity_id": first["legal_entity_id"]}
    second = await network.open_centre(code="second-centre", **again)
    assert second["legal_entity_id"] == first["legal_entity_id"]
    listed = (await network.get("/v1/centres")).json()["items"]
    assert [centre["code"] for centre in listed] == ["test-centre", "second-centre"]


async def test_centres_come_in_pages(network: Network) -> None:
    for code in ("one", "two", "three"):
        await network.open_centre(code=code, legal_entity={"name": f"Test Clinic {code}"})
    first = (await network.get("/v1/centres?limit=2")).json()
    second = (await network.get(f"/v1/centres?limit=2&cursor={first['next_cursor']}")).json()
    assert [c["code"] for c in first["items"] + second["items"]] == ["one", "two", "three"]
    assert second["next_cursor"] is None


async def test_a_centre_that_makes_no_sense_is_refused(network: Network) -> None:
    for changes in (
        {"time_zone": "Moscow"},
        {"currency": "rub"},
        {"phone": "8 800"},
        {"code": "Test Centre"},
        {"language": "russian"},
        {"legal_entity": None},
        {"legal_entity_id": str(uuid7())},
        {"surprise": 1},
    ):
        answer = await network.post("/v1/centres", network.centre(**changes))
        assert (answer.status_code, answer.json()["type"]) == (422, "/problems/invalid-request"), changes


async def test_a_legal_entity_that_does_not_exist_is_named(network: Network) -> None:
    body = network.centre(legal_entity=None, legal_entity_id=str(uuid7()))
    answer = await network.post("/v1/centres", body)
    assert (answer.status_code, answer.json()["reference"]) == (422, "legal_entity_id")


async def test_of_many_centres_with_one_code_one_is_opened(network: Network) -> None:
    bodies = [network.centre(legal_entity={"name": f"Test Clinic {n}"}) for n in range(5)]
    answers = await asyncio.gather(*(network.post("/v1/centres", body) for body in bodies))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert {problem["type"] for problem in refused} == {"/problems/code-taken"}
    assert len(await network.identity.events("identity.centre-opened.v1")) == 1


async def test_a_centre_is_opened_by_those_who_work_everywhere(network: Network) -> None:
    local = network.identity.principal("system-administrator", network=False)
    assert (await network.post("/v1/centres", network.centre(), by=local)).status_code == 403


async def test_a_change_of_a_centre_needs_the_version_that_was_seen(network: Network) -> None:
    opened = await network.open_centre()
    path = f"/v1/centres/{opened['centre_id']}"
    body = {k: opened[k] for k in ("currency", "time_zone", "language", "address", "phone")}
    body["name"] = "Renamed centre"
    assert (await network.put(path, body, version=None)).status_code == 428
    changed = await network.put(path, body, version=1)
    assert (changed.status_code, changed.headers["ETag"]) == (200, '"2"')
    assert (await network.put(path, body, version=1)).status_code == 412
    [event] = await network.identity.events("identity.centre-changed.v1")
    assert (event.data["version"], event.data["name"]) == (2, "Renamed centre")
    assert (await network.put(f"/v1/centres/{uuid7()}", body, version=1)).status_code == 404


async def test_a_department_is_opened_changed_and_closed(network: Network) -> None:
    centre = await network.open_centre()
    opened = await network.open_department(centre["centre_id"])
    path = f"/v1/departments/{opened['department_id']}"
    changed = await network.put(path, {"name": "Skin"}, version=1)
    assert (changed.status_code, changed.json()["name"], changed.json()["specialty"]) == (200, "Skin", None)
    closed = await network.post(f"{path}/close")
    assert (closed.json()["status"], closed.json()["version"]) == ("closed", 3)
    again = await network.post(f"{path}/close")
    assert (again.status_code, again.json()["type"]) == (409, "/problems/department-closed")
    assert (await network.put(path, {"name": "Skin"}, version=3)).status_code == 409
    types = [event.type for event in await network.identity.events() if "department" in event.type]
    assert types == [f"identity.department-{verb}.v1" for verb in ("opened", "changed", "closed")]
    assert (await network.get(path)).json()["closed_at"] is not None


async def test_a_departments_code_is_unique_in_its_centre(network: Network) -> None:
    first = await network.open_centre()
    second = await network.open_centre(code="second", legal_entity={"name": "Second Test Clinic"})
    await network.open_department(first["centre_id"])
    await network.open_department(second["centre_id"])
    body = {"centre_id": first["centre_id"], "code": "dermatology", "name": "Another"}
    answer = await network.post("/v1/departments", body)
    assert (answer.status_code, answer.json()["type"]) == (409, "/problems/code-taken")
    listed = (await network.get(f"/v1/departments?centre_id={first['centre_id']}")).json()
    assert len(listed["items"]) == 1


async def test_a_department_belongs_to_a_centre_that_exists_and_is_in_reach(network: Network) -> None:
    body = {"centre_id": str(uuid7()), "code": "dermatology", "name": "Dermatology"}
    unknown = await network.post("/v1/departments", body)
    assert (unknown.status_code, unknown.json()["reference"]) == (422, "centre_id")
    local = network.identity.principal("system-administrator", network=False)
    assert (await network.post("/v1/departments", body, by=local)).status_code == 403
    for missing in (f"/v1/departments/{uuid7()}", f"/v1/centres/{uuid7()}"):
        assert (await network.get(missing)).status_code == 404
    assert (await network.post(f"/v1/departments/{uuid7()}/close")).status_code == 404


async def test_every_change_is_audited_with_who_did_it(network: Network) -> None:
    centre = await network.open_centre()
    await network.open_department(centre["centre_id"])
    written = [r for r in await network.audit() if r["agent"]["who"] == str(network.admin.subject)]
    assert [(r["action"], r["entity"]["type"]) for r in written] == [
        ("C", "Organization"),
        ("C", "Location"),
        ("C", "Organization"),
    ]
