"""Finding patients."""

# Cyrillic is what is tested

from clinic_shared.ids import uuid7

from .conftest import Clinic


async def test_case_and_the_dots_of_yo_do_not_matter(clinic: Clinic) -> None:
    wanted = await clinic.named("Семёнов", "Тест")
    await clinic.named("Сидоров", "Тест")
    assert await clinic.find(name="СЕМЕН") == [wanted]
    assert await clinic.find(name="семён") == [wanted]


async def test_names_match_by_their_beginnings_in_any_order(clinic: Clinic) -> None:
    wanted = await clinic.named("Примеров", "Тест", "Образцович")
    await clinic.named("Примеров", "Иной", "Образцович")
    for name in ("примеров тест", "тест обр прим", "Обр Тест", "ПРИМЕРОВ, Т."):
        assert await clinic.find(name=name) == [wanted], name
    assert await clinic.find(name="меров") == []


async def test_a_given_name_is_not_found_in_the_family_name(clinic: Clinic) -> None:
    ivan = await clinic.named("Иванов", "Иван", "Тестович")
    await clinic.named("Иванов", "Пётр", "Тестович")
    assert await clinic.find(name="Иванов Иван") == [ivan]
    assert await clinic.find(name="Иван Иванов") == [ivan]


async def test_who_matches_by_two_words_is_listed_once(clinic: Clinic) -> None:
    ivan = await clinic.named("Иванов", "Иван", "Иванович")
    assert await clinic.find(name="иван") == [ivan]


async def test_by_phone_in_any_format(clinic: Clinic) -> None:
    wanted = (await clinic.register(phones=["+70000000005", "+70000000006"]))["patient_id"]
    await clinic.register(phones=["+70000000007"])
    for phone in ("8 (000) 000-00-05", "+7 000 000-00-06", "0000000005"):
        assert await clinic.find(phone=phone) == [wanted], phone


async def test_by_identifier_as_written(clinic: Clinic) -> None:
    identifier = {"authority": "TEST-LAB", "value": "Т-7|8"}
    wanted = await clinic.register(identifiers=[identifier])
    await clinic.register(identifiers=[{"authority": "TEST-OTHER", "value": "Т-7|8"}])
    assert await clinic.find(identifier=identifier) == [wanted["patient_id"]]
    own = wanted["identifiers"][0]
    by_own = {"authority": own["authority"], "value": own["value"]}
    assert await clinic.find(identifier=by_own) == [wanted["patient_id"]]


async def test_by_birth_date_alone_and_with_a_name(clinic: Clinic) -> None:
    elder = (await clinic.register(birth_on="1950-05-05"))["patient_id"]
    other = await clinic.register(birth_on="1950-05-05", name={"family": "Иная"})
    await clinic.register(birth_on="1951-05-05")
    assert await clinic.find(birth_on="1950-05-05") == [elder, other["patient_id"]]
    assert await clinic.find(birth_on="1950-05-05", name="тестова") == [elder]


async def test_a_changed_name_is_found_and_the_old_one_is_not(clinic: Clinic) -> None:
    patient = await clinic.register(name={"family": "Прежняя"})
    body = clinic.person(name={"family": "Новая"})
    del body["centre_id"]
    await clinic.call("PUT", f"/v1/patients/{patient['patient_id']}", body=body, If_Match='"1"')
    assert await clinic.find(name="прежняя") == []
    assert await clinic.find(name="новая") == [patient["patient_id"]]


async def test_pages_show_everybody_once_and_the_cursor_holds_no_name(clinic: Clinic) -> None:
    registered = {await clinic.named("Иванов", f"Тест{n}", "Иванович") for n in range(5)}
    registered.add(await clinic.named("Иваненко"))
    seen: list[str] = []
    path = "/v1/patients/search?limit=2"
    while True:
        page = (await clinic.call("POST", path, body={"name": "иван"})).json()
        seen += [item["patient_id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        path = f"/v1/patients/search?limit=2&cursor={page['next_cursor']}"
        assert len(page["next_cursor"]) < 60
    assert len(seen) == len(registered) == 6
    assert set(seen) == registered


async def test_a_cursor_of_someone_who_no_longer_matches_asks_to_start_again(clinic: Clinic) -> None:
    for n in range(3):
        await clinic.named("Тестов", f"Иной{n}")
    page = (await clinic.call("POST", "/v1/patients/search?limit=1", body={"name": "тестов"})).json()
    path = f"/v1/patients/search?limit=1&cursor={page['next_cursor']}"
    assert (await clinic.call("POST", path, body={"name": "другой"})).status_code == 422


async def test_one_audit_record_per_patient_that_was_shown(clinic: Clinic) -> None:
    shown = {await clinic.named("Тестов", f"Иной{n}") for n in range(3)}
    before = len(await clinic.audited())
    answer = await clinic.call("POST", "/v1/patients/search?limit=2", body={"name": "тестов"})
    records = (await clinic.audited())[before:]
    assert [r["patient"] for r in records] == [i["patient_id"] for i in answer.json()["items"]]
    assert {r["patient"] for r in records} < shown
    assert {r["action"] for r in records} == {"R"}
    assert "тестов" not in str(records).casefold()


async def test_a_search_for_nothing_is_refused(clinic: Clinic) -> None:
    for criteria in ({}, {"name": "---"}, {"phone": "x"}, {"name": ""}, {"sql": "1"}):
        answer = await clinic.call("POST", "/v1/patients/search", body=criteria)
        assert answer.status_code == 422, criteria


async def test_wildcards_of_the_database_are_only_characters(clinic: Clinic) -> None:
    await clinic.named("Тестов")
    assert await clinic.find(name="т_стов") == []
    assert await clinic.find(identifier={"authority": "%", "value": "%"}) == []


async def test_the_url_form_finds_the_same(clinic: Clinic) -> None:
    patient = await clinic.register(identifiers=[{"authority": "TEST", "value": "1"}])
    for query in ("name=тест анн", "phone=80000000001", "birth_on=1990-01-01", "identifier=TEST|1"):
        answer = await clinic.call("GET", f"/v1/patients?{query}")
        assert [i["patient_id"] for i in answer.json()["items"]] == [patient["patient_id"]], query
    assert (await clinic.call("GET", "/v1/patients?identifier=TEST")).status_code == 422


async def test_a_stub_is_not_found(clinic: Clinic) -> None:
    await clinic.lab_result("received", patient_id=str(uuid7()))
    assert await clinic.find(name="т") == []
