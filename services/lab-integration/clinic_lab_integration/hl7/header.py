"""The header of a message, or of an envelope that stands in for one: who asks whom for what.

The answer's addresses, its mode and its control id come from here (HL7 v2.5.1, 2.15.9).
"""

import re
from dataclasses import dataclass
from datetime import tzinfo
from functools import cached_property

from clinic_lab_integration.hl7.datatypes import read_offset
from clinic_lab_integration.hl7.model import Segment

_VERSION = re.compile(r"2\.([1-9])(?:\.[0-9A-Za-z]{1,4})?")
OLDEST, NEWEST = (2, 1), (2, 9)


@dataclass(frozen=True)
class Header:
    """Judging and answering ask for each field many times, so each is read once."""

    segment: Segment

    @cached_property
    def is_message(self) -> bool:
        return self.segment.name == "MSH"

    def _message_text(self, field: int, component: int | None = None) -> str:
        return self.segment.text(field, component) if self.is_message else ""

    @cached_property
    def sending_application(self) -> str:
        return self.segment.text(3)

    @cached_property
    def sending_facility(self) -> str:
        return self.segment.text(4)

    @cached_property
    def message_code(self) -> str:
        return self._message_text(9, 1)

    @cached_property
    def trigger_event(self) -> str:
        return self._message_text(9, 2)

    @cached_property
    def message_structure(self) -> str:
        return self._message_text(9, 3)

    @cached_property
    def control_id(self) -> str:
        return self._message_text(10)

    @cached_property
    def processing_id(self) -> str:
        return self._message_text(11, 1)

    @cached_property
    def version_id(self) -> str:
        return self._message_text(12, 1)

    @cached_property
    def version(self) -> tuple[int, int] | None:
        """`2.3.1`, and `2.3.z` of one American health department, are version 2.3; None if not 2.x."""
        match = _VERSION.fullmatch(self.version_id)
        return (2, int(match[1])) if match else None

    @cached_property
    def accept_acknowledgment(self) -> str:
        return self._message_text(15)

    @cached_property
    def application_acknowledgment(self) -> str:
        return self._message_text(16)

    @cached_property
    def default_zone(self) -> tzinfo | None:
        """HL7 v2.5.1, 2.15.9.7: an offset in MSH-7 holds for all times of the message."""
        return read_offset(self.segment.text(7, 1))
