"""Identity's tables. `patient` and `patient_merge` are projections; `role` a copy of the taxonomy in contracts."""

from clinic_shared.merges import patient_merge_table
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData()

Instant = DateTime(timezone=True)

legal_entity = Table(
    "legal_entity",
    metadata,
    Column("legal_entity_id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("registered_at", Instant, nullable=False),
)
centre = Table(
    "centre",
    metadata,
    Column("centre_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("legal_entity_id", Uuid, nullable=False),
    Column("currency", Text, nullable=False),
    Column("time_zone", Text, nullable=False),
    Column("language", Text, nullable=False),
    Column("address", Text),
    Column("phone", Text),
    Column("status", Text, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("changed_at", Instant),
)
department = Table(
    "department",
    metadata,
    Column("department_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("centre_id", Uuid, nullable=False),
    Column("code", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("specialty", Text),
    Column("status", Text, nullable=False),
    Column("opened_at", Instant, nullable=False),
    Column("changed_at", Instant),
    Column("closed_at", Instant),
)
role = Table(
    "role",
    metadata,
    Column("code", Text, primary_key=True),
    Column("taxonomy_version", BigInteger, nullable=False),
    Column("title", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
)
patient = Table(
    "patient",
    metadata,
    Column("patient_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("active", Boolean, nullable=False),
)
patient_merge = patient_merge_table(metadata)
account = Table(
    "account",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("login", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("password_expires_at", Instant),
    Column("must_change_password", Boolean, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("patient_id", Uuid),
    Column("tokens_valid_from", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("second_factor_due_at", Instant),
    Column("enrolment_ends_at", Instant),
)
staff = Table(
    "staff",
    metadata,
    Column("staff_id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("family", Text, nullable=False),
    Column("given", Text),
    Column("patronymic", Text),
    Column("roles", ARRAY(Text), nullable=False),
    Column("network", Boolean, nullable=False),
    Column("centre_ids", ARRAY(Uuid), nullable=False),
    Column("department_ids", ARRAY(Uuid), nullable=False),
    Column("practitioner", Boolean, nullable=False),
    Column("specialty", Text),
    Column("active", Boolean, nullable=False),
    Column("added_at", Instant, nullable=False),
    Column("moved_at", Instant),
    Column("deactivated_at", Instant),
)
session = Table(
    "session",
    metadata,
    Column("session_id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("last_used_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Column("end_reason_code", Text),
    Column("amr", ARRAY(Text), nullable=False, server_default="{pwd}"),
    Column("authenticated_at", Instant),
    Column("device_id", Uuid),
    Column("address", Text),
    Column("agent", Text),
    Column("unlock_failures", Integer, nullable=False, server_default="0"),
    Column("client_id", Text),
    Column("granted_scopes", ARRAY(Text)),
)
known_device = Table(
    "known_device",
    metadata,
    Column("device_id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("first_seen_at", Instant, nullable=False),
    Column("last_seen_at", Instant, nullable=False),
)
workstation_pin = Table(
    "workstation_pin",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("sealed_hash", LargeBinary, nullable=False),
    Column("chosen_at", Instant, nullable=False),
)
second_factor = Table(
    "second_factor",
    metadata,
    Column("factor_id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("secret", LargeBinary),
    Column("last_step", BigInteger),
    Column("credential_id", LargeBinary),
    Column("public_key", LargeBinary),
    Column("sign_count", BigInteger),
    Column("created_at", Instant, nullable=False),
    Column("confirmed_at", Instant),
    Column("last_used_at", Instant),
)
recovery_code = Table(
    "recovery_code",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("used_at", Instant),
)
sign_in_ticket = Table(
    "sign_in_ticket",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("used_at", Instant),
    Column("device_id", Uuid),
)
passkey_challenge = Table(
    "passkey_challenge",
    metadata,
    Column("holder", LargeBinary, primary_key=True),
    Column("challenge", LargeBinary, nullable=False),
    Column("expires_at", Instant, nullable=False),
)
sms_factor = Table(
    "sms_factor",
    metadata,
    Column("account_id", Uuid, primary_key=True),
    Column("sealed_number", LargeBinary, nullable=False),
    Column("verified_at", Instant, nullable=False),
)
one_time_code = Table(
    "one_time_code",
    metadata,
    Column("holder", LargeBinary, primary_key=True),
    Column("request_id", Uuid, nullable=False),
    Column("account_id", Uuid, nullable=False),
    Column("sealed_key", LargeBinary, nullable=False),
    Column("box", LargeBinary),
    Column("box_version", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("expires_at", Instant, nullable=False),
)
factor_reset = Table(
    "factor_reset",
    metadata,
    Column("reset_id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("reason", Text, nullable=False),
    Column("requested_by", Uuid, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("decision", Text),
    Column("decided_by", Uuid),
    Column("decided_at", Instant),
)
refresh_token = Table(
    "refresh_token",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("session_id", Uuid, nullable=False),
    Column("issued_at", Instant, nullable=False),
    Column("used_at", Instant),
)
access_link = Table(
    "access_link",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("used_at", Instant),
)
access_link_request = Table(
    "access_link_request",
    metadata,
    Column("request_id", Uuid, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("requested_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("attempt_version", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("channel", Text),
    Column("failure_code", Text),
)
attempt_counter = Table(
    "attempt_counter",
    metadata,
    Column("kind", Text, primary_key=True),
    Column("subject", LargeBinary, primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("counted_from", Instant, nullable=False),
    Column("last_failure_at", Instant, nullable=False),
    Column("blocked_until", Instant),
)
client = Table(
    "client",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("client_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("network", Boolean, nullable=False),
    Column("centre_ids", ARRAY(Uuid), nullable=False),
    Column("secret_digest", Text, nullable=False),
    Column("previous_secret_digest", Text),
    Column("previous_secret_expires_at", Instant),
    Column("active", Boolean, nullable=False),
    Column("registered_at", Instant, nullable=False),
    Column("changed_at", Instant),
    Column("tokens_valid_from", Instant, nullable=False),
    Column("jwks", JSONB(none_as_null=True)),
    Column("redirect_uris", ARRAY(Text), nullable=False, server_default="{}"),
    Column("user_scopes", ARRAY(Text), nullable=False, server_default="{}"),
    Column("jwks_url", Text),
    Column("certificate", JSONB(none_as_null=True)),
)
used_assertion = Table(
    "used_assertion",
    metadata,
    Column("client_key", Uuid, primary_key=True),
    Column("jti_digest", LargeBinary, primary_key=True),
    Column("expires_at", Instant, nullable=False),
)
authorization_code = Table(
    "authorization_code",
    metadata,
    Column("digest", LargeBinary, primary_key=True),
    Column("client_id", Text, nullable=False),
    Column("session_id", Uuid, nullable=False),
    Column("redirect_uri", Text, nullable=False),
    Column("code_challenge", Text, nullable=False),
    Column("nonce", Text),
    Column("expires_at", Instant, nullable=False),
    Column("used_at", Instant),
)
browser_session = Table(
    "browser_session",
    metadata,
    Column("session_id", Uuid, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("renewed_at", Instant, nullable=False),
)
external_login = Table(
    "external_login",
    metadata,
    Column("issuer", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("account_id", Uuid, nullable=False),
    Column("linked_at", Instant, nullable=False),
)
external_login_attempt = Table(
    "external_login_attempt",
    metadata,
    Column("state_digest", LargeBinary, primary_key=True),
    Column("browser_digest", LargeBinary, nullable=False),
    Column("nonce", Text, nullable=False),
    Column("verifier", Text, nullable=False),
    Column("link_digest", LargeBinary),
    Column("expires_at", Instant, nullable=False),
)
