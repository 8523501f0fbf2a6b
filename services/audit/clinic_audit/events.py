"""Events out: checkpoints, so that others witness them (contracts/events/audit)."""

import base64

from clinic_shared.events import Event, wire_instant

from clinic_audit.domain import Checkpoint


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
