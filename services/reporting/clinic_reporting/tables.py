"""Reporting's tables: one row per aggregate of the others in its newest state, without who the patient is.

A fact is counted where and when its own columns say, so the order and number of deliveries don't matter.
"""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, DateTime, Integer, MetaData, Table, Text, Uuid
from sqlalchemy.dialects.postgresql import ARRAY

metadata = MetaData()


def _required(name: str, kind: Any) -> Column[Any]:
    return Column(name, kind, nullable=False)


def _at(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _place(*, nullable: bool = False) -> tuple[Column[Any], Column[Any]]:
    return Column("centre_id", Uuid, nullable=nullable), Column("department_id", Uuid, nullable=nullable)


def _aggregate(name: str, key: str, *columns: Column[Any]) -> Table:
    """`occurred_at` is the time of the event that brought the newest state."""
    return Table(
        name,
        metadata,
        Column(key, Uuid, primary_key=True),
        _required("version", BigInteger),
        *columns,
        _at("occurred_at"),
    )


centre = _aggregate(
    "centre", "centre_id", _required("name", Text), _required("time_zone", Text), _required("status", Text)
)
department = _aggregate(
    "department",
    "department_id",
    _required("centre_id", Uuid),
    _required("name", Text),
    _required("status", Text),
)
staff_member = _aggregate(
    "staff_member",
    "staff_id",
    _required("department_ids", ARRAY(Uuid)),
    _required("practitioner", Boolean),
    _required("active", Boolean),
)
service = _aggregate(
    "service", "service_id", _required("code", Text), _required("name", Text), _required("status", Text)
)
appointment_fact = _aggregate(
    "appointment_fact",
    "appointment_id",
    _required("status", Text),
    *_place(),
    _required("service_code", Text),
    _at("starts_at"),
    _at("ends_at"),
)
referral_fact = _aggregate(
    "referral_fact",
    "referral_id",
    _required("status", Text),
    _required("from_centre_id", Uuid),
    _required("from_department_id", Uuid),
    _required("to_centre_id", Uuid),
    _required("to_department_id", Uuid),
    _at("created_at"),
    _at("accepted_at", nullable=True),
    _at("declined_at", nullable=True),
    _at("booked_at", nullable=True),
    _at("seen_at", nullable=True),
    _at("reported_at", nullable=True),
    _at("closed_at", nullable=True),
)
lab_order_fact = _aggregate(
    "lab_order_fact", "lab_order_id", _required("status", Text), *_place(), _at("placed_at")
)
lab_result_fact = _aggregate(
    "lab_result_fact",
    "result_id",
    _required("status", Text),
    *_place(nullable=True),
    Column("lab_order_id", Uuid),
    _required("critical_count", Integer),
    Column("partner_id", Uuid),
    Column("test_code", Text),
    Column("test_system", Text),
    _at("collected_at", nullable=True),
    _at("reported_at", nullable=True),
)
lab_milestone = Table(
    "lab_milestone",
    metadata,
    Column("result_id", Uuid, primary_key=True),
    Column("milestone", Text, primary_key=True),
    _at("reached_at"),
)
critical_result_fact = _aggregate(
    "critical_result_fact",
    "obligation_id",
    _required("status", Text),
    *_place(nullable=True),
    _at("raised_at"),
)
invoice_fact = _aggregate(
    "invoice_fact",
    "invoice_id",
    _required("centre_id", Uuid),
    Column("department_id", Uuid),
    _required("currency", Text),
    _required("total_minor", BigInteger),
    _at("issued_at"),
)
payment_fact = _aggregate(
    "payment_fact",
    "payment_id",
    _required("centre_id", Uuid),
    Column("department_id", Uuid),
    _required("currency", Text),
    _required("amount_minor", BigInteger),
    _at("received_at"),
)
refund_fact = _aggregate(
    "refund_fact",
    "refund_id",
    _required("centre_id", Uuid),
    Column("department_id", Uuid),
    _required("currency", Text),
    _required("amount_minor", BigInteger),
    _at("refunded_at"),
)
message_fact = _aggregate(
    "message_fact",
    "message_id",
    _required("status", Text),
    _required("channel", Text),
    _required("purpose", Text),
    *_place(nullable=True),
    _at("queued_at"),
)
registration_fact = _aggregate(
    "registration_fact",
    "patient_id",
    _required("status", Text),
    Column("centre_id", Uuid),
    _at("registered_at"),
)
encounter_fact = _aggregate(
    "encounter_fact", "encounter_id", _required("status", Text), *_place(), _at("started_at")
)
prescription_fact = _aggregate(
    "prescription_fact", "prescription_id", _required("status", Text), *_place(), _at("issued_at")
)
consent_fact = _aggregate(
    "consent_fact", "consent_id", _required("status", Text), _required("kind", Text), _at("changed_at")
)
READ_MODEL = tuple(metadata.tables.values())
"""What events alone make, and can make again."""

checkpoint_witness = Table(
    "checkpoint_witness",
    metadata,
    Column("checkpoint_id", Uuid, primary_key=True),
    Column("root_hash", Text, primary_key=True),
    _required("log_origin", Text),
    _required("tree_size", BigInteger),
    _required("key_id", Text),
    _required("algorithm", Text),
    _required("signature", Text),
    _at("signed_at"),
    _at("witnessed_at"),
)
