"""Events out: checkpoints, so that others witness them, and what was found suspicious (contracts/events/audit)."""

import base64

from clinic_shared.events import Event, wire_id, wire_instant

from clinic_audit.domain import Checkpoint
from clinic_audit.suspicions import Suspicion


def checkpoint_signed(checkpoint: Checkpoint) -> Event:
    return Event(
        type="audit.audit-checkpoint-signed.v1",
        subject=checkpoint.checkpoint_id,
        aggregate_version=1,
        data={
            "checkpoint_id": str(checkpoint.checkpoint_id),
            "log_origin": checkpoint.log_origin,
            "tree_size": checkpoint.tree_size,
            "root_hash": checkpoint.root_hash.hex(),
            "key_id": checkpoint.key_id,
            "algorithm": checkpoint.algorithm,
            "signature": base64.urlsafe_b64encode(checkpoint.signature).rstrip(b"=").decode(),
            "signed_at": wire_instant(checkpoint.signed_at),
        },
    )


def suspicious_access_detected(found: Suspicion) -> Event:
    return Event(
        type="audit.suspicious-access-detected.v1",
        subject=found.suspicion_id,
        aggregate_version=found.version,
        data={
            "suspicion_id": str(found.suspicion_id),
            "version": found.version,
            "rule": found.rule.value,
            "severity": found.severity.value,
            "state": found.state.value,
            "person": str(found.person),
            "patient_id": wire_id(found.patient_id),
            "first_at": wire_instant(found.first_at),
            "last_at": wire_instant(found.last_at),
            "detected_at": wire_instant(found.detected_at),
            "review_due_at": wire_instant(found.review_due_at),
        },
    )
