"""Two people who mend what could not take effect: one corrects a message, the other redrives the copy."""

import json
import time
from dataclasses import dataclass
from typing import Any

from clinic_local.api_client import ApiError, Caller
from clinic_shared.ids import uuid7

from .history import Answer, History
from .outside import MENDED, MENDED_AT
from .people import PATIENCE_SECONDS, Patient, persist
from .planting import BOOKED, forged
from .server_harm import Broker
from .waiting import undo

_QUEUE = f"{MENDED_AT}.{BOOKED.partition('.')[0]}"
_LETTERS = f"/v1/ops/dead-letters/{MENDED_AT}"
_LOOK_SECONDS = 0.5
_MOST_TIMES = 6
_LEFT_OUT = "starts_at"
Letter = dict[str, Any]


@dataclass
class Operator:
    """Who mends a message may not be who lets it be handled."""

    caller: Caller
    steward: Caller
    broker: Broker
    history: History

    def mend(self, patient: Patient) -> None:
        """Let one consumer get an event that lacks something, and correct it until the copy has taken effect."""
        appointment = uuid7()
        envelope, body = forged(BOOKED, self.history, patient, version=1, appointment_id=appointment)
        whole = json.loads(body)
        lacking = {**whole, "data": {name: v for name, v in whole["data"].items() if name != _LEFT_OUT}}
        self.history.record(MENDED, str(appointment), Answer.UNKNOWN)
        self.history.planted.add(envelope.id)
        spoilt = json.dumps(lacking).encode()
        for _ in range(_MOST_TIMES):
            # Published without a confirm: a broker that died may have lost it. Who has it already takes it for the same.
            undo(lambda: self.broker.publish_to(_QUEUE, envelope.headers(), spoilt))
            if self._mended(str(envelope.id), patient.patient_id, whole):
                self.history.record(MENDED, str(appointment), Answer.ACKED)
                return

    def _mended(self, event_id: str, key: str, whole: dict[str, Any]) -> bool:
        deadline = time.monotonic() + PATIENCE_SECONDS / _MOST_TIMES
        while not (done := self._is_mended(event_id, key, whole)) and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return done

    def _is_mended(self, event_id: str, key: str, whole: dict[str, Any]) -> bool:
        """Take the next step of it, whichever that is by now. Returns whether there is none."""
        letters: list[Letter] = persist(self.history, {}, lambda: self.caller.items(_LETTERS, key=key))
        letter = next((one for one in letters if one["event_id"] == event_id), None)
        if letter is None:
            return False
        if letter["state"] != "superseded":
            self._try(
                self.steward, f"{letter['id']}/correct", {"body": whole, "reason": "left out by a test"}
            )
            return False
        copy = next((one for one in letters if one["corrects"] == letter["id"]), None)
        if copy is None:
            return True
        self.history.copied(copy["event_id"])
        if copy["run_id"] is None:
            self._try(self.caller, f"{copy['id']}/redrive", {})
        return False

    def _try(self, caller: Caller, step: str, body: dict[str, Any]) -> None:
        """Whoever was too late, or got no answer, looks again."""
        try:
            persist(self.history, {}, lambda: caller.post(f"{_LETTERS}/{step}", body))
        except ApiError as error:
            if error.status not in {404, 409, 422}:
                raise
