"""Pure rules: forward only, whom to reach how, when to remind, what a text says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clinic_notifications.channels import whatsapp
from clinic_notifications.domain import (
    Channel,
    Consent,
    Failure,
    MessageStatus,
    Purpose,
    Recipient,
    TemplateInvalidError,
    is_overtaken,
    pick_channel,
    reminders_to_come,
    steps_towards,
)
from clinic_notifications.wording import FIELDS, Place, Template, fields_of, render, spell_amount
from clinic_shared import contracts
from clinic_shared.ids import uuid7

NOW = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
PATIENT = uuid7()


def recipient(**changes: Any) -> Recipient:
    known: dict[str, Any] = {
        "status": "active",
        "phones": ["+70000000001"],
        "emails": ["anna.testova@example.org"],
        "language": "ru",
        "consents": [],
    }
    return Recipient(**known | changes)


def template(body: str, channel: Channel = Channel.SMS) -> Template:
    return Template(
        template_id=uuid7(),
        code="appointment-reminder",
        language="en",
        channel=channel,
        department_id=None,
        version=1,
        subject=None,
        body=body,
        vendor_name=None,
        changed_at=NOW,
    )


@pytest.mark.parametrize("current", list(MessageStatus))
@pytest.mark.parametrize("told", [MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ])
def test_a_message_moves_only_forward(current: MessageStatus, told: MessageStatus) -> None:
    order = [MessageStatus.QUEUED, MessageStatus.SENT, MessageStatus.DELIVERED, MessageStatus.READ]
    steps = steps_towards(current, told)
    if current in order and order.index(current) < order.index(told):
        assert steps[-1] is told
    else:
        assert not steps


@pytest.mark.parametrize("current", list(MessageStatus))
def test_what_was_delivered_can_t_fail_any_more(current: MessageStatus) -> None:
    can = current in {MessageStatus.QUEUED, MessageStatus.SENT}
    assert bool(steps_towards(current, MessageStatus.FAILED)) is can


def test_the_first_wanted_channel_with_an_address_is_taken() -> None:
    assert pick_channel(recipient(), Purpose.REMINDER, now=NOW) is Channel.WHATSAPP
    assert pick_channel(recipient(phones=[]), Purpose.REMINDER, now=NOW) is Channel.EMAIL
    assert (
        pick_channel(recipient(), Purpose.REMINDER, now=NOW, tried=[Channel.WHATSAPP, Channel.SMS])
        is Channel.EMAIL
    )
    assert pick_channel(recipient(phones=[], emails=[]), Purpose.REMINDER, now=NOW) is Failure.NO_ADDRESS


def test_a_withdrawn_or_expired_consent_closes_its_channels() -> None:
    withdrawn = Consent(status="withdrawn", channel="whatsapp", expires_at=None)
    assert pick_channel(recipient(consents=[withdrawn]), Purpose.REMINDER, now=NOW) is Channel.SMS
    over = Consent(status="granted", channel=None, expires_at=NOW)
    assert pick_channel(recipient(consents=[over]), Purpose.REMINDER, now=NOW) is Failure.OPTED_OUT
    valid = Consent(status="granted", channel=None, expires_at=NOW + timedelta(days=1))
    assert pick_channel(recipient(consents=[valid]), Purpose.REMINDER, now=NOW) is Channel.WHATSAPP


def test_an_opt_out_counts_for_its_purpose_only() -> None:
    chosen = (Purpose.REMINDER,)
    assert pick_channel(recipient(opted_out=chosen), Purpose.REMINDER, now=NOW) is Failure.OPTED_OUT
    assert pick_channel(recipient(opted_out=chosen), Purpose.CONFIRMATION, now=NOW) is Channel.WHATSAPP


def test_only_reminders_that_are_still_to_come_are_planned() -> None:
    assert set(reminders_to_come(NOW + timedelta(hours=30), NOW)) == {"24h", "2h"}
    assert set(reminders_to_come(NOW + timedelta(hours=24), NOW)) == {"2h"}
    assert reminders_to_come(NOW + timedelta(hours=1), NOW) == {}


def test_after_an_outage_the_nearest_reminder_is_enough() -> None:
    starts_at = NOW + timedelta(hours=48)
    assert not is_overtaken("24h", starts_at, NOW + timedelta(hours=45))
    assert is_overtaken("24h", starts_at, NOW + timedelta(hours=46))
    assert not is_overtaken("2h", starts_at, NOW + timedelta(hours=47))


def test_times_are_the_centre_s_and_dates_are_spelled_in_the_patient_s_language() -> None:
    facts = {"starts_at": "2026-03-03T21:30:00+00:00", "time_zone": "Asia/Vladivostok", "service": None}
    russian = fields_of(facts, Place(), "ru")
    assert (russian["date"], russian["time"]) == ("4 марта 2026", "07:30")
    assert fields_of(facts, Place(), "en")["date"] == "4 March 2026"


def test_a_field_without_a_value_is_a_dash_and_none_has_line_breaks() -> None:
    fields = fields_of({}, Place(address="Testgrad,\n\tStreet  1"), "en")
    assert fields["service"] == "—"
    assert fields["address"] == "Testgrad, Street 1"
    assert set(fields) == set(FIELDS)


@pytest.mark.parametrize(
    ("amount", "currency", "language", "spelled"),
    [
        (250_000, "RUB", "ru", "2 500,00 RUB"),
        (250_000, "EUR", "en", "2,500.00 EUR"),
        (250_000, "JPY", "en", "250,000 JPY"),
    ],
)
def test_amounts_are_spelled_in_major_units(amount: int, currency: str, language: str, spelled: str) -> None:
    assert spell_amount(amount, currency, language) == spelled


def test_parameters_come_in_the_order_of_the_text() -> None:
    fields = dict.fromkeys(FIELDS, "-") | {"date": "D", "time": "T"}
    rendered = render(template("At {{ time }} on {{ date }}, {{ time }}!", Channel.WHATSAPP), fields)
    assert (rendered.text, rendered.parameters) == ("At T on D, T!", ["T", "D", "T"])


@pytest.mark.parametrize(
    "body",
    [
        "{{ diagnosis }}",
        "{{ service.__class__ }}",
        "{{ 'a' * 1000000000 }}",
        "{% for i in range(10) %}x{% endfor %}",
        "{{ unclosed",
        "{% include 'x' %}",
    ],
)
def test_a_template_is_text_and_known_fields_only(body: str) -> None:
    with pytest.raises(TemplateInvalidError):
        render(template(body), dict.fromkeys(FIELDS, "-"))


def test_fields_are_not_rendered_again() -> None:
    fields = dict.fromkeys(FIELDS, "-") | {"service": "{{ phone }}"}
    assert render(template("{{ service }}"), fields).text == "{{ phone }}"


def test_the_taxonomy_knows_every_purpose_and_failure() -> None:
    codes = contracts.load().taxonomy("codes")
    assert {p.value for p in Purpose} <= set(codes["message-purpose"])
    assert {f.value for f in Failure} <= set(codes["message-failure"])


def test_whatsapp_signatures_are_over_the_raw_body() -> None:
    # printf '{"a":1}' | openssl dgst -sha256 -hmac secret
    signature = "sha256=aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494"
    assert whatsapp.is_signed(b'{"a":1}', signature, "secret")
    assert not whatsapp.is_signed(b'{"a": 1}', signature, "secret")
    assert not whatsapp.is_signed(b'{"a":1}', "", "secret")
