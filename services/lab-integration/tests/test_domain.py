"""What a newer report does to what is known, whose results they are, how far an order has come: pure rules."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from clinic_lab_integration.domain import (
    Disposition,
    KnownOrder,
    LabOrderId,
    ObservationState,
    OrderedTest,
    OrderStatus,
    Parked,
    ParkReason,
    ReportContent,
    ReportVersion,
    SentReport,
    Superseded,
    match,
    merged,
    new_criticals,
    next_version,
    order_status,
    settled,
)
from clinic_lab_integration.hl7 import ResultStatus
from clinic_shared.ids import uuid7

NINE = datetime(2026, 1, 15, 9, 0, tzinfo=UTC)
NOTHING = ReportVersion()


def observation(code: str | None = "718-7", value: str = "112", **changes: Any) -> ObservationState:
    known = ObservationState(
        code=code,
        system="http://loinc.org",
        display=None,
        value_type="NM",
        value=value,
        units="g/L",
        reference_range=None,
        interpretation=(),
        status="F",
        observed_at=None,
        sub_id=None,
        notes=(),
    )
    return replace(known, **changes)


def sent(
    *observations: ObservationState,
    status: ResultStatus = ResultStatus.FINAL,
    hours: int | None = 0,
    message_hours: int | None = None,
) -> SentReport:
    return SentReport(
        index=0,
        key="filler:F-1|58410-2",
        placer_order_number=None,
        filler_order_number="F-1",
        own_order_number=None,
        code="58410-2",
        system=None,
        display=None,
        status=status,
        collected_at=None,
        reported_at=None if hours is None else NINE + timedelta(hours=hours),
        sent_at=None if message_hours is None else NINE + timedelta(hours=message_hours),
        content=ReportContent(observations=observations or (observation(),)),
    )


def after(*reports: SentReport) -> ReportVersion:
    """What is known after these; each must have been taken."""
    known = NOTHING
    for report in reports:
        outcome = next_version(known, report)
        assert isinstance(outcome, ReportVersion), outcome
        known = outcome
    return known


def values(version: ReportVersion) -> dict[str | None, str | None]:
    return {o.code: o.value for o in version.content.observations}


class TestMerging:
    def test_what_is_not_sent_again_still_stands(self):
        known = ReportContent(observations=(observation("A", "1"), observation("B", "2")))
        newer = ReportContent(observations=(observation("B", "3"),))
        assert [o.value for o in merged(known, newer).observations] == ["1", "3"]

    def test_what_is_deleted_stays_as_a_line_without_its_value(self):
        known = ReportContent(observations=(observation("A", "1"), observation("B", "2")))
        newer = ReportContent(observations=(observation("B", "2", status="D"),))
        after = merged(known, newer)
        assert [(o.code, o.value, o.status) for o in after.observations][1:] == [("B", None, "D")]
        assert merged(after, newer) == after

    def test_the_second_of_two_alike_is_replaced_by_the_second(self):
        known = ReportContent(observations=(observation("A", "1"), observation("A", "2")))
        newer = ReportContent(observations=(observation("A", "1"), observation("A", "9")))
        assert [o.value for o in merged(known, newer).observations] == ["1", "9"]

    def test_sub_ids_keep_observations_of_one_code_apart(self):
        known = ReportContent(
            observations=(observation("A", "1", sub_id="1"), observation("A", "2", sub_id="2"))
        )
        newer = ReportContent(observations=(observation("A", "9", sub_id="2"),))
        assert [o.value for o in merged(known, newer).observations] == ["1", "9"]

    def test_observations_without_a_code_are_kept(self):
        newer = ReportContent(observations=(observation(None, "text"), observation(None, "more")))
        assert len(merged(ReportContent(), newer).observations) == 2


class TestVersions:
    def test_the_first_is_version_one(self):
        assert (after(sent()).version, after(sent()).status) == (1, ResultStatus.FINAL)

    def test_a_preliminary_report_becomes_final_in_the_next_version(self):
        known = after(sent(observation(status="P"), status=ResultStatus.PRELIMINARY), sent(hours=1))
        assert (known.version, known.status) == (2, ResultStatus.FINAL)

    def test_the_same_again_is_superseded(self):
        assert isinstance(next_version(after(sent()), sent(hours=1)), Superseded)

    @pytest.mark.parametrize("status", [ResultStatus.CORRECTED, ResultStatus.AMENDED])
    def test_a_change_of_what_was_final_says_so(self, status):
        known = after(sent(), sent(observation(value="121"), status=status, hours=1))
        assert (known.version, known.status, values(known)) == (2, status, {"718-7": "121"})

    def test_a_lab_that_goes_on_saying_final_has_corrected_all_the_same(self):
        known = after(sent(), sent(observation(value="121"), hours=1))
        assert known.status is ResultStatus.CORRECTED

    def test_a_lab_that_adds_to_what_was_final_has_amended_it(self):
        known = after(sent(), sent(observation("789-8", "4.1"), hours=1))
        assert (known.status, len(known.content.observations)) == (ResultStatus.AMENDED, 2)

    def test_a_correction_that_we_see_first_is_version_one(self):
        known = after(sent(observation(status="C")))
        assert (known.version, known.status) == (1, ResultStatus.CORRECTED)

    def test_what_was_corrected_arrives_after_its_correction_and_changes_nothing(self):
        known = after(sent(observation(value="121", status="C"), status=ResultStatus.CORRECTED))
        assert isinstance(next_version(known, sent()), Superseded)

    def test_an_older_correction_changes_nothing(self):
        newer = sent(observation(value="3"), status=ResultStatus.CORRECTED, hours=2)
        older = sent(observation(value="2"), status=ResultStatus.CORRECTED, hours=1)
        assert isinstance(next_version(after(newer), older), Superseded)

    def test_the_time_of_the_message_tells_where_that_of_the_report_does_not(self):
        newer = sent(observation(value="3"), status=ResultStatus.CORRECTED, message_hours=2)
        older = sent(observation(value="2"), status=ResultStatus.CORRECTED, message_hours=1)
        assert isinstance(next_version(after(newer), older), Superseded)

    def test_a_late_preliminary_report_changes_nothing(self):
        late = sent(observation(status="P", value="1"), status=ResultStatus.PRELIMINARY, hours=-1)
        assert isinstance(next_version(after(sent()), late), Superseded)

    def test_a_newer_preliminary_report_after_a_final_one_needs_a_person(self):
        newer = sent(observation(status="P", value="1"), status=ResultStatus.PRELIMINARY, hours=1)
        assert next_version(after(sent()), newer) == Parked(ParkReason.WENT_BACK)
        assert isinstance(next_version(after(sent()), newer, decided=True), ReportVersion)


class TestRetraction:
    @pytest.mark.parametrize(("code", "reason"), [("W", "wrong-patient"), ("D", "deleted")])
    def test_all_wrong_or_deleted_retracts_the_report_and_repeats_no_value(self, code, reason):
        known = after(sent(), sent(observation(status=code), hours=1))
        assert (known.status, known.retraction_reason_code) == (ResultStatus.ENTERED_IN_ERROR, reason)
        assert known.content.observations == ()

    def test_one_wrong_among_others_corrects_the_report(self):
        known = after(
            sent(observation("A"), observation("B")), sent(observation("A", status="W"), observation("B"))
        )
        assert known.status is ResultStatus.CORRECTED
        assert [o.status for o in known.content.observations] == ["W", "F"]

    def test_a_cancelled_order_retracts_without_a_reason(self):
        known = after(sent(), sent(observation(status="X", value=""), status=ResultStatus.CANCELLED, hours=1))
        assert (known.status, known.retraction_reason_code) == (ResultStatus.CANCELLED, None)

    def test_the_original_that_arrives_after_its_retraction_does_not_come_to_life(self):
        known = after(sent(observation(status="W"), hours=1))
        assert isinstance(next_version(known, sent()), Superseded)

    def test_a_newer_result_after_a_retraction_is_taken(self):
        known = after(sent(), sent(observation(status="W"), hours=1), sent(hours=2))
        assert (known.version, known.status) == (3, ResultStatus.FINAL)

    def test_without_times_a_person_decides_whether_a_retracted_result_is_meant_anew(self):
        known = after(sent(observation(status="W"), hours=None))
        assert next_version(known, sent(hours=None)) == Parked(ParkReason.AFTER_RETRACTION)


class TestCriticalValues:
    def test_a_critical_value_is_told_once(self):
        critical = observation(interpretation=("HH",), status="P")
        first = after(sent(critical, status=ResultStatus.PRELIMINARY))
        final = after(
            sent(critical, status=ResultStatus.PRELIMINARY), sent(replace(critical, status="F"), hours=1)
        )
        assert new_criticals(NOTHING, first) == (critical,)
        assert new_criticals(first, final) == ()

    def test_another_critical_value_is_told_again(self):
        first = after(sent(observation(interpretation=("HH",))))
        second = after(
            sent(observation(interpretation=("HH",))),
            sent(observation(interpretation=("HH",), value="999"), hours=1),
        )
        assert [o.value for o in new_criticals(first, second)] == ["999"]

    def test_a_retraction_raises_nothing(self):
        retracted = after(sent(observation(interpretation=("LL",), status="W")))
        assert new_criticals(NOTHING, retracted) == ()

    @pytest.mark.parametrize(
        ("flag", "critical", "abnormal"), [("HH", 1, 1), ("AA", 1, 1), ("H", 0, 1), ("N", 0, 0)]
    )
    def test_flags_count(self, flag, critical, abnormal):
        content = ReportContent(observations=(observation(interpretation=(flag,)),))
        assert (content.count(critical=True), content.count(critical=False)) == (critical, abnormal)


@pytest.fixture
def order() -> Callable[..., KnownOrder]:
    def make(**changes: Any) -> KnownOrder:
        ids = {name: uuid7() for name in ("patient_id", "partner_id", "practitioner_id", "centre_id")}
        known = KnownOrder(
            lab_order_id=LabOrderId(uuid7()), placer_order_number="PC-1", department_id=uuid7(), **ids
        )
        return replace(known, **changes)

    return make


class TestMatching:
    def test_our_order_number_tells_whose_results_they_are(self, order):
        one = order()
        assert match(one.partner_id, orders=[one], identified=[]) == one.patient_id

    def test_an_identifier_tells_it_too(self):
        patient_id = uuid7()
        assert match(uuid7(), orders=[], identified=[patient_id]) == patient_id

    def test_nothing_known_is_unmatched(self):
        assert match(uuid7(), orders=[], identified=[]) is ParkReason.UNMATCHED

    def test_an_order_and_an_identifier_that_disagree_need_a_person(self, order):
        one = order()
        found = match(one.partner_id, orders=[one], identified=[uuid7()])
        assert found is ParkReason.ORDER_OF_ANOTHER_PATIENT

    def test_two_patients_with_one_identifier_need_a_person(self):
        assert match(uuid7(), orders=[], identified=[uuid7(), uuid7()]) is ParkReason.SEVERAL_PATIENTS

    def test_orders_of_two_patients_in_one_group_need_a_person(self, order):
        one = order()
        found = match(one.partner_id, orders=[one, order(partner_id=one.partner_id)], identified=[])
        assert found is ParkReason.SEVERAL_PATIENTS

    def test_an_order_that_went_to_another_laboratory_needs_a_person(self, order):
        assert match(uuid7(), orders=[order()], identified=[]) is ParkReason.ORDER_OF_ANOTHER_LAB


class TestDispositions:
    @pytest.mark.parametrize(
        ("reports", "group"),
        [
            (["applied", "applied"], "applied"),
            (["applied", "in-flight"], "in-flight"),
            (["applied", "in-flight", "parked"], "parked"),
            (["applied", "superseded"], "applied"),
            (["superseded", "superseded"], "superseded"),
        ],
    )
    def test_a_group_is_what_its_reports_are(self, reports, group):
        assert settled(Disposition(report) for report in reports) == group


class TestOrders:
    def test_an_order_is_resulted_when_every_test_has_a_released_result(self):
        tests = [OrderedTest("A"), OrderedTest("B")]
        one, two = uuid7(), uuid7()
        assert order_status(tests, {}) is OrderStatus.PLACED
        assert order_status(tests, {one: ResultStatus.FINAL}) is OrderStatus.PARTLY_RESULTED
        both = {one: ResultStatus.FINAL, two: ResultStatus.PRELIMINARY}
        assert order_status(tests, both) is OrderStatus.PARTLY_RESULTED
        assert order_status(tests, both | {two: ResultStatus.CORRECTED}) is OrderStatus.RESULTED

    def test_retracted_results_leave_an_order_placed(self):
        assert (
            order_status([OrderedTest("A")], {uuid7(): ResultStatus.ENTERED_IN_ERROR}) is OrderStatus.PLACED
        )
