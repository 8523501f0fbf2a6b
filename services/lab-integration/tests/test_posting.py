"""Who may post, in which shapes, and what comes back: the HTTP side of `POST /v1/lab/messages`."""

import base64
from typing import Any

import pytest
from clinic_lab_integration.message_api import MEDIA_TYPES
from clinic_lab_integration.partners import PartnerDirectory
from clinic_shared.intake import intake_table
from clinic_shared.principal import Principal

from .conftest import MESSAGES, Laboratory, digest_of, msa

HL7 = "application/hl7-v2"


class TestWho:
    @pytest.mark.parametrize(
        "authorization",
        ["", "Basic", "Basic ???", "Basic bm9jb2xvbg==", "Digest x", "Bearer nonsense", "Bearer"],
    )
    async def test_without_credentials_nothing_is_read(self, lab: Laboratory, compose, authorization) -> None:
        answer = await lab.post(compose(), authorization=authorization)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"]
        assert await lab.dispositions() == {}

    async def test_a_wrong_secret_or_an_unknown_client_gets_the_same_refusal(
        self, lab: Laboratory, compose
    ) -> None:
        refusals = []
        for client_id, secret in ((lab.client_id, "wrong"), ("nobody", lab.secret)):
            stranger = Laboratory(lab.lab, client_id=client_id, secret=secret)
            refusals.append(await stranger.post(compose()))
        assert [r.status_code for r in refusals] == [401, 401]
        assert refusals[0].json()["detail"] == refusals[1].json()["detail"]

    async def test_a_laboratory_registered_a_moment_ago_is_let_in(self, lab: Laboratory, compose) -> None:
        newcomer = Laboratory(lab.lab, client_id="lab-new", secret="new-secret")
        await lab.lab.deliver_example(
            "identity.lab-registered.v1",
            partner_id=str(newcomer.partner_id),
            client_id="lab-new",
            secret_digests=[digest_of("new-secret")],
        )
        assert (await newcomer.post(compose())).status_code == 200

    async def test_while_a_secret_is_replaced_both_are_good(self, lab: Laboratory, compose) -> None:
        await lab.lab.deliver_example(
            "identity.lab-changed.v1",
            version=2,
            partner_id=str(lab.partner_id),
            client_id=lab.client_id,
            secret_digests=[digest_of("newer"), digest_of(lab.secret)],
        )
        await lab.lab.runtime.get(PartnerDirectory).refresh()
        assert (await lab.post(compose())).status_code == 200
        lab.secret = "newer"
        assert (await lab.post(compose(msh={10: "M-2"}))).status_code == 200

    async def test_a_blocked_laboratory_is_not_let_in(self, lab: Laboratory, compose) -> None:
        await lab.lab.deliver_example(
            "identity.lab-changed.v1",
            version=2,
            partner_id=str(lab.partner_id),
            client_id=lab.client_id,
            active=False,
            secret_digests=[digest_of(lab.secret)],
        )
        await lab.lab.runtime.get(PartnerDirectory).refresh()
        assert (await lab.post(compose())).status_code == 401

    async def test_a_laboratory_that_the_clinic_switched_off_is_told_so(
        self, lab: Laboratory, compose
    ) -> None:
        await lab.lab.http.put(
            f"/v1/lab/partners/{lab.partner_id}",
            json={"enabled": False},
            headers=lab.headers("system-administrator"),
        )
        await lab.lab.runtime.get(PartnerDirectory).refresh()
        answer = await lab.post(compose())
        assert answer.status_code == 403
        assert answer.json()["type"] == "/problems/partner-disabled"

    async def test_a_laboratory_may_come_with_a_token(self, lab: Laboratory, compose) -> None:
        principal = lab.lab.principal("lab", subject=lab.partner_id)
        answer = await lab.post(compose(), authorization=f"Bearer {lab.lab.token(principal)}")
        assert (answer.status_code, msa(answer)[1]) == (200, "AA")

    async def test_a_token_of_someone_else_is_refused(self, lab: Laboratory, compose) -> None:
        for principal in (lab.lab.principal("doctor"), lab.lab.principal("lab")):
            answer = await lab.post(compose(), authorization=f"Bearer {lab.lab.token(principal)}")
            assert answer.status_code == 403

    async def test_what_a_laboratory_sent_only_it_and_the_staff_may_see(
        self, lab: Laboratory, compose
    ) -> None:
        path = (await lab.post(compose())).headers["location"]
        await lab.process()
        other = Laboratory(lab.lab, client_id="lab-other", secret="another-secret")
        await other.register()
        get = lab.lab.http.get
        own = await get(path, auth=(lab.client_id, lab.secret))
        assert own.status_code == 200
        assert own.json()["raw_base64"] is None
        assert (await get(path, auth=(other.client_id, other.secret))).status_code == 404
        assert (await get(path)).status_code == 401
        assert (await get(path, headers=lab.headers("biller"))).status_code == 404
        staff = (await get(path, headers=lab.headers("doctor"))).json()
        assert base64.b64decode(staff["raw_base64"]) == compose().rstrip(b"\r")
        assert (await get(MESSAGES, headers=lab.headers("registrar"))).status_code == 403


class TestShapes:
    @pytest.mark.parametrize("content_type", [*MEDIA_TYPES, "Application/HL7-v2; charset=utf-8"])
    async def test_every_name_of_the_format_is_taken(self, lab: Laboratory, compose, content_type) -> None:
        answer = await lab.post(compose(), content_type)
        assert (answer.status_code, msa(answer)) == (200, ["MSA", "AA", "MSG-1"])
        assert answer.headers["content-type"] == HL7

    @pytest.mark.parametrize("content_type", ["application/json", "application/xml", ""])
    async def test_other_formats_are_refused(self, lab: Laboratory, compose, content_type) -> None:
        assert (await lab.post(compose(), content_type)).status_code == 415
        assert await lab.dispositions() == {}

    @pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\n\r"])
    @pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b"\x0b"])
    async def test_every_line_end_with_or_without_a_mark_is_taken(
        self, lab: Laboratory, compose, end, mark
    ) -> None:
        await lab.add_patient()
        await lab.send(mark + compose(end=end))
        assert await lab.result_events() == [("received", 1, "preliminary")]

    async def test_mixed_line_ends_and_other_separators_are_taken(self, lab: Laboratory) -> None:
        await lab.add_patient()
        answer = await lab.post(
            b"MSH#$*/%#LIS#LAB#PC#C#20260115103000##ORU$R01#M-1#P#2.3\rPID#1##MRN-1$$$POLYCLINIC$MR\n"
            b"OBR#1##F-1#GLU$Glucose$L#\r\nOBX#1#NM#GLU$Glucose$L##5.1#mmol/L#####F\n"
        )
        assert "MSA#AA#M-1" in answer.text
        await lab.process()
        [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
        assert event.private["observations"][0]["code"] == "GLU"

    async def test_a_fifth_encoding_character_is_taken(self, lab: Laboratory, compose) -> None:
        await lab.add_patient()
        await lab.send(compose(msh={2: "^~\\&#", 12: "2.7"}))
        assert await lab.result_events() == [("received", 1, "preliminary")]

    @pytest.mark.parametrize("charset", [None, "WINDOWS-1251"])
    async def test_cyrillic_that_nobody_declared_is_read(self, lab: Laboratory, sample, charset) -> None:
        await lab.lab.http.put(
            f"/v1/lab/partners/{lab.partner_id}",
            json={"default_charset": charset},
            headers=lab.headers("system-administrator"),
        )
        await lab.lab.runtime.get(PartnerDirectory).refresh()
        await lab.add_patient()
        await lab.send(sample("windows-1251"))
        [event] = await lab.lab.events("lab-integration.lab-result-received.v1")
        assert event.data["report"]["display"] == "С-реактивный белок"

    @pytest.mark.parametrize("codec", ["utf-16", "utf-16-le"])
    async def test_utf_16_is_taken_and_kept_as_it_came(self, lab: Laboratory, compose, codec) -> None:
        await lab.add_patient()
        payload = compose(codec=codec)
        answer = await lab.post(payload)
        assert "MSA|AA|MSG-1" in answer.content.decode("utf-16")
        await lab.process()
        assert await lab.result_events() == [("received", 1, "preliminary")]
        kept = await lab.get(answer.headers["location"])
        assert base64.b64decode(kept["before_base64"]) == payload

    @pytest.mark.parametrize(
        "around", [(b"", b""), (b"\xef\xbb\xbf", b"\r\n"), (b"\x0b", b"\x1c\r"), (b"\n ", b"\n\n")]
    )
    async def test_the_bytes_are_kept_as_they_came(self, lab: Laboratory, compose, around) -> None:
        payload = around[0] + compose() + around[1]
        message_id = await lab.send(payload)
        kept = await lab.get(f"{MESSAGES}/{message_id}")
        parts = (kept["before_base64"], kept["raw_base64"], kept["after_base64"])
        assert b"".join(base64.b64decode(part) for part in parts) == payload

    async def test_several_messages_have_an_answer_each_and_links(self, lab: Laboratory, sample) -> None:
        await lab.add_patient("MRN-1")
        await lab.add_patient("MRN-2")
        payload = sample("two-messages")
        answer = await lab.post(payload)
        assert [line for line in answer.text.split("\r") if line.startswith("MSA")] == [
            "MSA|AA|FIRST-0001",
            "MSA|AA|SECOND-0001",
        ]
        links = [part.split(">")[0].strip(" <") for part in answer.headers["link"].split(",")]
        assert links[0] == answer.headers["location"]
        await lab.process()
        kept = [await lab.get(link) for link in links]
        parts = [m[name] for m in kept for name in ("before_base64", "raw_base64", "after_base64")]
        assert b"".join(base64.b64decode(part) for part in parts) == payload
        assert await lab.result_events() == [("received", 1, "final"), ("received", 1, "preliminary")]

    async def test_a_batch_is_answered_by_a_batch_and_the_same_one_again(
        self, lab: Laboratory, compose
    ) -> None:
        messages = [compose(msh={10: f"M-{n}"}) for n in (1, 2)]
        batch = b"BHS|^~\\&|LIS|LAB|PC|C|20260115||||B-1\r" + b"".join(messages) + b"BTS|2\r"
        first, second = await lab.post(batch), await lab.post(batch)
        assert first.text.startswith("BHS|^~\\&|PC|C|LIS|LAB|")
        assert first.content == second.content
        await lab.process()
        assert await lab.dispositions() == {"answered": 4, "parked": 2, "duplicate": 2}

    async def test_a_large_message_is_taken(self, lab: Laboratory, compose) -> None:
        await lab.add_patient()
        document = "A" * 3_000_000
        message = compose(
            "PID|1||MRN-1^^^POLYCLINIC^MR",
            "OBR|1||F-1|PDF",
            f"OBX|1|ED|PDF||LIS^AP^PDF^Base64^{document}||||||F",
        )
        await lab.send(message)
        assert await lab.result_events() == [("received", 1, "final")]

    async def test_too_much_is_refused(self, lab: Laboratory, compose) -> None:
        answer = await lab.post(compose() + b"NTE|" + b"x" * (10 * 1024 * 1024))
        assert answer.status_code == 413
        assert await lab.dispositions() == {}

    @pytest.mark.parametrize("body", [b"", b"hello", b"{}", b"PID|1\r", b"\xff\xfe", b"\x00" * 9])
    async def test_what_is_no_message_is_refused_as_a_problem(self, lab: Laboratory, body) -> None:
        answer = await lab.post(body)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert await lab.dispositions() == {}

    @pytest.mark.parametrize(
        "msh",
        [{10: "X" * 5000}, {3: "Y" * 9000}, {3: "\x00|"}, {10: "Ж" * 300}, {9: "ORU^R01^" + "Z" * 4000}],
    )
    async def test_header_fields_of_any_length_are_borne(self, lab: Laboratory, compose, msh) -> None:
        assert (await lab.post(compose(msh=msh))).status_code == 200
        await lab.process()
        assert sum((await lab.dispositions()).values()) == 2

    async def test_numbers_longer_than_an_index_can_hold_are_borne(self, lab: Laboratory, compose) -> None:
        long = "9" * 4000
        message = compose(
            f"PID|1||{long}^^^{long}^MR", f"OBR|1|{long}^POLYCLINIC|{long}|{long}", "OBX|1|NM|1||2||||||F"
        )
        message_id = await lab.send(message)
        assert await lab.units(message_id) == [("parked", "unmatched")]


class TestAnswers:
    @pytest.mark.parametrize(
        ("msh", "code", "error"),
        [
            ({9: "ADT^A01"}, "AR", "200"),
            ({9: "ORU^R30"}, "AR", "201"),
            ({9: ""}, "AR", "101"),
            ({11: "X"}, "AR", "202"),
            ({11: ""}, "AR", "101"),
            ({12: "3.0"}, "AR", "203"),
            ({10: ""}, "AE", "101"),
            ({15: "AL", 9: "ADT^A01"}, "CR", "200"),
        ],
    )
    async def test_what_is_not_taken_is_answered_with_its_place_and_kept(
        self, lab: Laboratory, compose, msh, code, error
    ) -> None:
        answer = await lab.post(compose(msh=msh))
        assert (answer.status_code, msa(answer)[1]) == (200, code)
        [err] = [line for line in answer.text.split("\r") if line.startswith("ERR")]
        assert err.split("|")[3].startswith(f"{error}^")
        await lab.process()
        message_id = answer.headers["location"].rpartition("/")[2]
        assert await lab.units(message_id) == [("rejected", f"answered-{code.lower()}")]
        assert await lab.dispositions() == {"answered": 1, "rejected": 1}

    @pytest.mark.parametrize("processing_id", ["T", "D"])
    async def test_what_is_for_tests_is_filed_outside_of_production(
        self, lab: Laboratory, compose, processing_id
    ) -> None:
        await lab.add_patient()
        message_id = await lab.send(compose(msh={11: processing_id}))
        assert await lab.units(message_id) == [("in-flight", None)]

    @pytest.mark.parametrize("msh", [{9: "ACK^R01"}, {15: "NE", 16: "NE"}, {15: "ER"}])
    async def test_where_no_answer_may_be_given_the_body_is_empty(
        self, lab: Laboratory, compose, msh
    ) -> None:
        answer = await lab.post(compose("MSA|AA|1", "OBR|1", msh=msh) if 9 in msh else compose(msh=msh))
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["location"]

    async def test_an_acknowledgement_is_kept_and_has_no_effect(self, lab: Laboratory, compose) -> None:
        answer = await lab.post(compose("MSA|AA|1", msh={9: "ACK^R01"}))
        await lab.process()
        message_id = answer.headers["location"].rpartition("/")[2]
        assert await lab.units(message_id) == [("rejected", "acknowledgement")]

    async def test_enhanced_mode_is_answered_in_its_words(self, lab: Laboratory, compose) -> None:
        assert msa(await lab.post(compose(msh={15: "AL", 16: "NE"})))[1] == "CA"

    async def test_a_refused_message_again_gets_the_same_answer(self, lab: Laboratory, compose) -> None:
        first, second = [await lab.post(compose(msh={9: "ADT^A01"})) for _ in range(2)]
        assert first.content == second.content
        await lab.process()
        assert await lab.dispositions() == {"answered": 2, "rejected": 1, "duplicate": 1}

    async def test_the_answer_stands_beside_the_message(self, lab: Laboratory, compose) -> None:
        answer = await lab.post(compose(msh={12: "9"}))
        kept = await lab.get(answer.headers["location"])
        assert kept["answer"] == answer.text
        assert [(f["severity"], f["location"]) for f in kept["findings"]] == [("E", "MSH-12")]
        assert (kept["control_id"], kept["message_type"], kept["answer_code"]) == ("MSG-1", "ORU^R01", "AR")

    async def test_messages_are_listed_the_newest_first(self, lab: Laboratory, compose) -> None:
        for number in (1, 2, 3):
            await lab.post(compose(msh={10: f"M-{number}"}))
        first = await lab.get(MESSAGES, limit="2")
        assert [m["control_id"] for m in first["items"]] == ["M-3", "M-2"]
        rest = await lab.get(MESSAGES, limit="2", cursor=first["next_cursor"])
        assert [m["control_id"] for m in rest["items"]] == ["M-1"]


class TestValidating:
    async def validate(self, lab: Laboratory, message: bytes, principal: Principal | None = None) -> Any:
        auth: Any = (lab.client_id, lab.secret) if principal is None else None
        headers = {"content-type": HL7}
        if principal is not None:
            headers["authorization"] = f"Bearer {lab.lab.token(principal)}"
        return await lab.lab.http.post(f"{MESSAGES}/validate", content=message, headers=headers, auth=auth)

    async def test_it_tells_the_answer_and_the_match_and_keeps_nothing(
        self, lab: Laboratory, compose
    ) -> None:
        await lab.add_patient()
        answer = await self.validate(lab, compose())
        assert answer.status_code == 200, answer.text
        [message] = answer.json()["messages"]
        assert "MSA|AA|MSG-1" in message["answer"]
        [group] = message["groups"]
        assert (group["matched"], group["reason"], group["patient_id"]) == (True, None, None)
        assert await lab.dispositions() == {}
        assert await lab.rows(intake_table) == []

    async def test_it_tells_what_is_wrong(self, lab: Laboratory, compose) -> None:
        [message] = (await self.validate(lab, compose(msh={11: ""}))).json()["messages"]
        errors = [f for f in message["findings"] if f["severity"] == "E"]
        assert [(f["code"], f["location"]) for f in errors] == [(101, "MSH-11")]
        assert message["groups"] == []

    async def test_strangers_may_not(self, lab: Laboratory, compose) -> None:
        assert (await self.validate(lab, compose(), lab.lab.principal("doctor"))).status_code == 403
