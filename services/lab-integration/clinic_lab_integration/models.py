"""What clients of lab-integration send and get. Requests refuse fields they don't know."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from uuid import UUID
from zoneinfo import available_timezones

from clinic_shared.errors import RuleError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import Row

from clinic_lab_integration.connection import Connection, Protocol
from clinic_lab_integration.domain import OrderedTest
from clinic_lab_integration.hl7 import AckMode
from clinic_lab_integration.hl7.charset import is_known
from clinic_lab_integration.order_messages import Action
from clinic_lab_integration.order_store import Transmission
from clinic_lab_integration.orders import PlaceOrder
from clinic_lab_integration.partners import ConfigurePartner
from clinic_lab_integration.store import CRITICAL_ACKNOWLEDGE_SECONDS, LabOrder, Partner, PartnerActivity


class Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_max_length=10_000)


Name = Annotated[str, Field(min_length=1, max_length=200)]


def _zone(name: str) -> str:
    if name not in available_timezones():
        raise RuleError("not a time zone of the IANA database")
    return name


def _charset(name: str) -> str:
    if not is_known(name):
        raise RuleError("not a character set of HL7 table 0211")
    return name


def _network(text: str) -> str:
    return str(ip_network(text))


def _callback(url: str) -> str:
    parts = urlsplit(url)
    plain = parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1"}
    if not (plain or parts.scheme == "https") or not parts.hostname or parts.username or parts.fragment:
        raise RuleError("not an https address")
    return url


Network = Annotated[str, AfterValidator(_network)]


class AuthorityName(Request):
    """How the lab names an authority that assigns numbers, and how we know it."""

    sent: str = Field(max_length=200, description="as in PID-3.4 or OBR-2.2; empty: numbers without any")
    known_as: Name


class PartnerRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "enabled": True,
                    "time_zone": "Europe/Moscow",
                    "default_charset": "WINDOWS-1251",
                    "identifier_authorities": [{"sent": "CLINIC", "known_as": "POLYCLINIC"}],
                }
            ]
        }
    )

    enabled: bool = Field(default=True, description="False: nothing is taken from this lab (403)")
    time_zone: Annotated[str, AfterValidator(_zone)] | None = Field(
        default=None, description="IANA zone of times that name none, in messages whose MSH-7 names none"
    )
    default_charset: Annotated[str, AfterValidator(_charset)] | None = Field(
        default=None, description="HL7 table 0211; for messages with an empty MSH-18. Null: found out"
    )
    identifier_authorities: list[AuthorityName] = Field(default=[], max_length=50)
    default_department_id: UUID | None = Field(
        default=None, description="looks after results that nobody here has ordered"
    )
    critical_acknowledge_seconds: int = Field(default=CRITICAL_ACKNOWLEDGE_SECONDS, ge=60, le=7 * 86400)
    protocols: list[Protocol] = Field(default=list(Protocol), description="the ways in that are open to it")
    ack_mode: AckMode = Field(
        default=AckMode.BY_MESSAGE,
        description="by-message: as MSH-15 and MSH-16 ask; original: always AA, AE, AR; enhanced: always CA, CE, CR",
    )
    messages_per_second: float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="for each process; beyond it MLLP waits and HTTP gets 503 with Retry-After",
    )
    test_mode: bool | None = Field(
        default=None,
        description="true: MSH-11 T and D are taken, for sandbox patients; false: P is; anything else is AR."
        " Null, undecided: all are taken, T and D are filed or parked (CLINIC_TAKE_TEST_MESSAGES)",
    )
    mllp_peers: list[Network] = Field(
        default=[], max_length=50, description="addresses or networks that may connect over MLLP"
    )
    mllp_certificate_names: list[Name] = Field(
        default=[], max_length=20, description="a client certificate with one of these names is demanded"
    )
    callback_url: Annotated[str, Field(max_length=500), AfterValidator(_callback)] | None = Field(
        default=None, description="is told of what is rejected after its acknowledgement"
    )

    def connection(self) -> Connection:
        return Connection(
            protocols=frozenset(self.protocols),
            ack_mode=self.ack_mode,
            messages_per_second=self.messages_per_second,
            test_mode=self.test_mode,
            mllp_peers=tuple(self.mllp_peers),
            mllp_certificate_names=tuple(self.mllp_certificate_names),
            callback_url=self.callback_url,
        )

    def command(self) -> ConfigurePartner:
        return ConfigurePartner(
            enabled=self.enabled,
            time_zone=self.time_zone,
            default_charset=self.default_charset,
            identifier_authorities={a.sent: a.known_as for a in self.identifier_authorities},
            default_department_id=self.default_department_id,
            critical_acknowledge_seconds=self.critical_acknowledge_seconds,
            connection=self.connection(),
        )


class PartnerResponse(BaseModel):
    """`active` is identity's word (the client may sign in), `enabled` ours."""

    partner_id: UUID
    version: int
    client_id: str
    name: str
    active: bool
    enabled: bool
    time_zone: str | None
    default_charset: str | None
    identifier_authorities: list[AuthorityName]
    default_department_id: UUID | None
    critical_acknowledge_seconds: int
    protocols: list[Protocol]
    ack_mode: AckMode
    messages_per_second: float | None
    test_mode: bool | None
    mllp_peers: list[str]
    mllp_certificate_names: list[str]
    callback_url: str | None

    @classmethod
    def of(cls, partner: Partner, **more: Any) -> "PartnerResponse":
        named = {name: getattr(partner, name, None) for name in PartnerResponse.model_fields}
        authorities = [
            AuthorityName(sent=sent, known_as=known) for sent, known in partner.identifier_authorities.items()
        ]
        connection = partner.connection.document()
        return cls(**{**named, **connection, "identifier_authorities": authorities, **more})


class PartnerDetail(PartnerResponse):
    """`groups` counts patient groups of messages by what became of them."""

    last_message_id: UUID | None
    last_received_at: datetime | None
    groups: dict[str, int]
    groups_in_24_hours: dict[str, int]
    error_rate: float | None = Field(
        description="share of the last 24 hours that was refused or waits for a person; null: nothing came"
    )
    lag_seconds: float = Field(description="how long what waits longest for the chart has waited; 0: nothing")
    callbacks: dict[str, int] = Field(description="told of rejections: waiting, delivered, failed")

    @classmethod
    def with_activity(
        cls, partner: Partner, activity: PartnerActivity, calls: dict[str, int], *, now: datetime
    ) -> "PartnerDetail":
        waiting_since = activity.oldest_in_flight_at
        made = cls.of(
            partner,
            last_message_id=activity.last_message_id,
            last_received_at=activity.last_received_at,
            groups=activity.dispositions,
            groups_in_24_hours=activity.day,
            error_rate=activity.error_rate,
            callbacks=calls,
            lag_seconds=max(0.0, (now - waiting_since).total_seconds()) if waiting_since else 0.0,
        )
        assert isinstance(made, cls)  # noqa: S101  # `of` makes what it is called on
        return made


class TestBody(Request):
    """A test by its code; `system` is a URI such as http://loinc.org, or null for the lab's own codes."""

    code: Name
    system: Name | None = None
    display: Annotated[str, Field(max_length=200)] | None = None


class OrderRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "patient_id": "01900000-0000-7000-8000-a00000000001",
                    "partner_id": "01900000-0000-7000-8000-1ab000000001",
                    "department_id": "01900000-0000-7000-8000-de0000000001",
                    "tests": [{"code": "58410-2", "system": "http://loinc.org", "display": "CBC panel"}],
                }
            ]
        }
    )

    patient_id: UUID
    partner_id: UUID
    tests: list[TestBody] = Field(min_length=1, max_length=100)
    priority: Literal["routine", "urgent", "asap", "stat"] = "routine"
    department_id: UUID | None = Field(default=None, description="the appointment's or your own, if left out")
    appointment_id: UUID | None = None
    encounter_id: UUID | None = None
    referral_id: UUID | None = None
    clinical_note: Annotated[str, Field(max_length=4000)] | None = None

    def command(self) -> PlaceOrder:
        tests = tuple(OrderedTest(t.code, t.system, t.display) for t in self.tests)
        return PlaceOrder(
            **{**{name: getattr(self, name) for name in type(self).model_fields}, "tests": tests}
        )


class TransmissionResponse(BaseModel):
    """What the laboratory was told of an order: pending until it has answered, then acknowledged or refused."""

    action: Action
    state: str
    attempts: int
    requested_at: datetime
    settled_at: datetime | None
    answer_code: str | None = Field(description="MSA-1, or an HTTP status")
    last_error: str | None

    @classmethod
    def of(cls, transmission: Transmission) -> "TransmissionResponse":
        return cls(**{name: getattr(transmission, name) for name in cls.model_fields})


class OrderResponse(BaseModel):
    """`placer_order_number` is what the lab sends back in ORC-2 / OBR-2.

    `transmissions` is empty for a laboratory that takes orders on paper only.
    """

    lab_order_id: UUID
    version: int
    status: str
    placer_order_number: str
    patient_id: UUID
    partner_id: UUID
    practitioner_id: UUID
    centre_id: UUID
    department_id: UUID
    appointment_id: UUID | None
    encounter_id: UUID | None
    referral_id: UUID | None
    priority: str
    tests: list[TestBody]
    clinical_note: str | None
    placed_at: datetime
    cancelled_at: datetime | None
    cancelled_by: UUID | None
    cancellation_reason: str | None
    transmissions: list[TransmissionResponse]

    @classmethod
    def of(cls, order: LabOrder, told: Mapping[UUID, Sequence[Transmission]]) -> "OrderResponse":
        named = {name: getattr(order, name, None) for name in cls.model_fields}
        named["tests"] = [TestBody(**vars(test)) for test in order.tests]
        named["transmissions"] = [TransmissionResponse.of(t) for t in told.get(order.lab_order_id, ())]
        return cls(**named)


class ResultResponse(BaseModel):
    """The newest version of a report, without its values: those are in the chart.

    `parent_filler_order_number` is of the report that this one grew out of: a reflex test.
    """

    result_id: UUID
    version: int
    status: str
    retraction_reason_code: str | None
    patient_id: UUID
    partner_id: UUID
    lab_order_id: UUID | None
    placer_order_number: str | None
    filler_order_number: str | None
    parent_filler_order_number: str | None
    code: str | None
    system: str | None
    display: str | None
    message_id: UUID
    collected_at: datetime | None
    reported_at: datetime | None
    received_at: datetime
    observation_count: int
    abnormal_count: int
    critical_count: int
    filed_at: datetime | None

    @classmethod
    def of(cls, row: Row[Any]) -> "ResultResponse":
        return cls(**{name: row._mapping[name] for name in cls.model_fields})  # noqa: SLF001  # public, by its documentation
