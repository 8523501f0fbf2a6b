"""The checker itself: whatever is planted is found, by its name and place, and a sound system is sound."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from .accounting import (
    AuditTrail,
    Obligation,
    Published,
    Receipt,
    Snapshot,
    Told,
    Violation,
    judge,
)
from .books import fingerprints
from .history import Answer, History, Resent

SUBJECT, OTHER = UUID(int=1), UUID(int=2)
EVENTS = [UUID(int=100 + n) for n in range(3)]
BOOKED, MOVED = "scheduling.appointment-booked.v1", "scheduling.appointment-rescheduled.v1"
LINE = {
    "interface": "hl7",
    "answered": 3,
    "applied": 2,
    "parked": 0,
    "rejected": 0,
    "superseded": 0,
    "duplicate": 1,
    "discarded": 0,
    "in_flight": 0,
    "balanced": True,
}


@pytest.fixture
def history() -> History:
    history = History()
    history.record("booking", "a", Answer.UNKNOWN)
    history.record("booking", "a", Answer.ACKED)
    history.record("booking", "b", Answer.ACKED)
    history.record("booking", "maybe", Answer.UNKNOWN)
    history.record("booking", "refused", Answer.FAILED)
    return history


@pytest.fixture
def snapshot() -> Snapshot:
    """A system in which everything is as it should be."""
    return Snapshot(
        effects={"booking": {"calendar": Counter(["a", "b"]), "chart": Counter(["a", "b", "maybe"])}},
        subscriptions={BOOKED: ("patients",), MOVED: ("patients",)},
        published={
            "scheduling": [
                Published(EVENTS[0], BOOKED, SUBJECT, 1),
                Published(EVENTS[1], MOVED, SUBJECT, 2),
                Published(EVENTS[2], BOOKED, OTHER, 1),
            ]
        },
        applied={"patients": {EVENTS[0]: 1.0, EVENTS[2]: 1.5, EVENTS[1]: 2.0}},
        waiting={"outbox of scheduling": 0},
        audit={"scheduling": AuditTrail(numbered=7, stored=7, distinct=7)},
        ledger={
            "interfaces": [dict(LINE)],
            "services": {"billing": {"money_sum_minor": 0}},
            "unreachable": [],
        },
        receipts=[Receipt("movement", "done", registered=1)],
        obligations=[Obligation("critical-result 1", owner="on-call", timers=1)],
        told=[
            Told("sent", is_sent=True, unknown_outcomes=0, received=1),
            Told("sent again, since nobody answered", is_sent=True, unknown_outcomes=1, received=2),
            Told("nobody can be reached", is_sent=False, unknown_outcomes=0, received=0),
        ],
    )


def test_a_sound_system_has_no_findings(snapshot: Snapshot, history: History) -> None:
    assert judge(snapshot, history).sound


def lose_an_effect(snapshot: Snapshot) -> None:
    del snapshot.effects["booking"]["chart"]["b"]


def double_an_effect(snapshot: Snapshot) -> None:
    snapshot.effects["booking"]["calendar"]["a"] = 2


def invent_an_effect(snapshot: Snapshot) -> None:
    snapshot.effects["booking"]["calendar"]["never-asked-for"] = 1


def let_a_refused_one_take_effect(snapshot: Snapshot) -> None:
    snapshot.effects["booking"]["calendar"]["refused"] = 1


def count_nothing(snapshot: Snapshot) -> None:
    snapshot.effects.clear()


def lose_an_event(snapshot: Snapshot) -> None:
    del snapshot.applied["patients"][EVENTS[1]]


def apply_what_nobody_published(snapshot: Snapshot) -> None:
    snapshot.applied["patients"][UUID(int=999)] = 3.0


def publish_a_version_twice(snapshot: Snapshot) -> None:
    snapshot.published["scheduling"].append(Published(UUID(int=998), BOOKED, SUBJECT, 2))
    snapshot.applied["patients"][UUID(int=998)] = 3.0


def skip_a_version(snapshot: Snapshot) -> None:
    snapshot.published["scheduling"].append(Published(UUID(int=998), MOVED, SUBJECT, 4))
    snapshot.applied["patients"][UUID(int=998)] = 3.0


def apply_out_of_order(snapshot: Snapshot) -> None:
    snapshot.applied["patients"][EVENTS[0]] = 9.0


def leave_the_outbox_full(snapshot: Snapshot) -> None:
    snapshot.waiting["outbox of scheduling"] = 1


def hold_a_message(snapshot: Snapshot) -> None:
    snapshot.kept["patients"] = {EVENTS[1]: "held"}
    del snapshot.applied["patients"][EVENTS[1]]


def lose_an_audit_record(snapshot: Snapshot) -> None:
    snapshot.audit["scheduling"] = AuditTrail(numbered=7, stored=6, distinct=6)


def invent_an_audit_record(snapshot: Snapshot) -> None:
    snapshot.audit["scheduling"] = AuditTrail(numbered=7, stored=8, distinct=8)


def double_an_audit_record(snapshot: Snapshot) -> None:
    snapshot.audit["scheduling"] = AuditTrail(numbered=7, stored=8, distinct=7)


def unbalance_an_interface(snapshot: Snapshot) -> None:
    assert snapshot.ledger is not None
    snapshot.ledger["interfaces"][0]["answered"] = 4


def leave_a_message_in_flight(snapshot: Snapshot) -> None:
    assert snapshot.ledger is not None
    snapshot.ledger["interfaces"][0] |= {"answered": 4, "in_flight": 1}


def make_money(snapshot: Snapshot) -> None:
    assert snapshot.ledger is not None
    snapshot.ledger["services"]["billing"]["money_sum_minor"] = 1


def hide_a_service(snapshot: Snapshot) -> None:
    assert snapshot.ledger is not None
    snapshot.ledger["unreachable"].append({"service": "billing", "reason": "upstream-unavailable"})


def owe_no_receipt(snapshot: Snapshot) -> None:
    snapshot.receipts.append(Receipt("other", None, registered=0))


def call_a_receipt_done_that_nobody_registered(snapshot: Snapshot) -> None:
    snapshot.receipts.append(Receipt("other", "done", registered=0))


def register_a_receipt_twice(snapshot: Snapshot) -> None:
    snapshot.receipts.append(Receipt("other", "done", registered=2))


def register_what_nobody_owes(snapshot: Snapshot) -> None:
    snapshot.unasked_receipts = ("other",)


def leave_a_receipt_open(snapshot: Snapshot) -> None:
    snapshot.receipts.append(Receipt("other", "sent", registered=1))


def ask_nobody(snapshot: Snapshot) -> None:
    snapshot.obligations.append(Obligation("review 2", owner=None, timers=1))


def forget_the_timer(snapshot: Snapshot) -> None:
    snapshot.obligations.append(Obligation("review 2", owner="reader", timers=0))


def ask_twice(snapshot: Snapshot) -> None:
    snapshot.obligations.append(Obligation("review 2", owner="reader", timers=2))


def send_nothing(snapshot: Snapshot) -> None:
    snapshot.told.append(Told("other", is_sent=True, unknown_outcomes=0, received=0))


def tell_twice_though_answered(snapshot: Snapshot) -> None:
    snapshot.told.append(Told("other", is_sent=True, unknown_outcomes=0, received=2))


def tell_what_nobody_said(snapshot: Snapshot) -> None:
    snapshot.unasked_messages = ("other",)


@pytest.mark.parametrize(
    ("plant", "violation", "where"),
    [
        (lose_an_effect, Violation.LOST, "booking: chart"),
        (double_an_effect, Violation.DUPLICATE, "booking: calendar"),
        (invent_an_effect, Violation.PHANTOM, "booking: calendar"),
        (let_a_refused_one_take_effect, Violation.PHANTOM, "booking: calendar"),
        (count_nothing, Violation.LOST, "the checker: nobody counts"),
        (lose_an_event, Violation.LOST, "events for patients"),
        (apply_what_nobody_published, Violation.PHANTOM, "events at patients"),
        (publish_a_version_twice, Violation.DUPLICATE, "log of scheduling"),
        (skip_a_version, Violation.GAP, "log of scheduling"),
        (apply_out_of_order, Violation.DISORDER, "scheduling at patients"),
        (leave_the_outbox_full, Violation.LEFT_OVER, "the system at rest"),
        (hold_a_message, Violation.LEFT_OVER, "dead letters of patients"),
        (lose_an_audit_record, Violation.LOST, "audit records of scheduling"),
        (invent_an_audit_record, Violation.PHANTOM, "audit records of scheduling"),
        (double_an_audit_record, Violation.DUPLICATE, "audit records of scheduling"),
        (unbalance_an_interface, Violation.UNBALANCED, "ledger of hl7"),
        (leave_a_message_in_flight, Violation.LEFT_OVER, "ledger of hl7"),
        (make_money, Violation.UNBALANCED, "money of billing"),
        (hide_a_service, Violation.LEFT_OVER, "ledger: unreachable"),
        (owe_no_receipt, Violation.LOST, "receipts"),
        (call_a_receipt_done_that_nobody_registered, Violation.LOST, "receipts"),
        (register_a_receipt_twice, Violation.DUPLICATE, "receipts"),
        (register_what_nobody_owes, Violation.PHANTOM, "receipts"),
        (leave_a_receipt_open, Violation.LEFT_OVER, "receipts"),
        (ask_nobody, Violation.UNOWNED, "obligations"),
        (forget_the_timer, Violation.UNOWNED, "obligations"),
        (ask_twice, Violation.UNOWNED, "obligations"),
        (send_nothing, Violation.LOST, "messengers"),
        (tell_twice_though_answered, Violation.DUPLICATE, "messengers"),
        (tell_what_nobody_said, Violation.PHANTOM, "messengers"),
    ],
)
def test_what_is_planted_is_found_and_nothing_else(
    snapshot: Snapshot,
    history: History,
    plant: Callable[[Snapshot], None],
    violation: Violation,
    where: str,
) -> None:
    plant(snapshot)
    found = judge(snapshot, history).findings
    assert [(finding.violation, finding.where) for finding in found] == [(violation, where)]


def test_what_was_acknowledged_once_stays_acknowledged(history: History) -> None:
    history.record("booking", "b", Answer.FAILED)
    history.record("booking", "refused", Answer.UNKNOWN)
    assert history.operations("booking") == {
        "a": Answer.ACKED,
        "b": Answer.ACKED,
        "maybe": Answer.UNKNOWN,
        "refused": Answer.UNKNOWN,
    }


def test_what_a_test_published_itself_is_no_phantom(snapshot: Snapshot, history: History) -> None:
    history.foreign.add(UUID(int=999))
    apply_what_nobody_published(snapshot)
    assert judge(snapshot, history).sound


def test_a_discarded_message_is_settled_and_a_parked_one_is_not(snapshot: Snapshot, history: History) -> None:
    hold_a_message(snapshot)
    snapshot.kept["patients"][EVENTS[1]] = "discarded"
    assert judge(snapshot, history).sound
    snapshot.kept["patients"][EVENTS[1]] = "parked"
    assert not judge(snapshot, history).sound


def test_what_was_resent_may_follow_what_is_newer_and_nothing_else_may(
    snapshot: Snapshot, history: History
) -> None:
    apply_out_of_order(snapshot)
    history.resent.append(Resent("reporting", "scheduling", at=5.0))
    assert not judge(snapshot, history).sound
    history.resent.append(Resent("patients", "scheduling", at=5.0))
    assert judge(snapshot, history).sound
    first, *others = snapshot.published["scheduling"]
    snapshot.published["scheduling"] = [replace(first, recorded_at=6.0), *others]
    assert not judge(snapshot, history).sound


def test_what_messengers_were_sent_twice_is_told_even_if_nobody_could_help_it(
    snapshot: Snapshot, history: History
) -> None:
    [remark] = judge(snapshot, history).remarks
    assert "3 messages, 1 with calls that nobody answered, 1 of which came twice" in remark


def test_a_verdict_reads_as_a_report(snapshot: Snapshot, history: History) -> None:
    assert "nothing lost" in str(judge(snapshot, history))
    lose_an_effect(snapshot)
    verdict = judge(snapshot, history)
    assert str(verdict) == "lost (1) in booking: chart: b"
    assert verdict.of(Violation.LOST)
    assert not verdict.of(Violation.PHANTOM)


@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"FHS|^~\\&\rBHS|^~\\&\r", b"\x0b"])
@pytest.mark.parametrize("line_end", [b"\r", b"\n", b"\r\n"])
def test_a_message_is_known_however_its_lines_end_and_whatever_wraps_it(
    before: bytes, line_end: bytes
) -> None:
    message = b"MSH|^~\\&|LAB\rPID|1\rOBX|1"
    wrapped = before + message.replace(b"\r", line_end) + line_end
    assert fingerprints(wrapped) == fingerprints(message)
    assert len(fingerprints(message)) == 1
