"""A stored message, read again as it was when it came: the one place that knows how each format is read."""

from clinic_lab_integration import messages, reports
from clinic_lab_integration.fhir import assess_bundle
from clinic_lab_integration.hl7 import Disposition
from clinic_lab_integration.messages import FHIR, MessageNote
from clinic_lab_integration.partners import zone_of
from clinic_lab_integration.reports import Content
from clinic_lab_integration.store import Partner


def read(interface: str, body: bytes, note: MessageNote, partner: Partner | None) -> Content:
    """What a message says that was taken."""
    if interface == FHIR:
        bundle = assess_bundle(body)
        return Content(report=bundle.report, sent_at=bundle.sent_at)
    return reports.read(messages.read_again(body, note), zone_of(partner))


def group_count_if_taken(interface: str, body: bytes, note: MessageNote) -> int | None:
    """How many patient groups a message has that would be taken now; None for one that would be refused."""
    if interface == FHIR:
        bundle = assess_bundle(body)
        return None if bundle.is_refused else len(bundle.report.patients)
    message = messages.read_again(body, note)
    taken = message.disposition is Disposition.ACCEPTED and message.message is not None
    return reports.group_count(message.message) if taken and message.message else None
