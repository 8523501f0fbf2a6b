"""A doctor who orders tests, which leave for the laboratory's stand-in."""

from dataclasses import dataclass
from typing import Any

from clinic_local.api_client import Caller
from clinic_local.demo_network import Network

from .history import History
from .outside import ORDER
from .people import Keys, Patient, persist


@dataclass
class Doctor:
    """Orders tests from the demo laboratory, which takes orders over HTTP."""

    caller: Caller
    network: Network
    history: History
    keys: Keys

    def order(self, patient: Patient) -> dict[str, Any]:
        _, key = self.keys.next()
        body = {
            "patient_id": patient.patient_id,
            "partner_id": self.network.lab_partner_id,
            "department_id": self.network.departments["dermatology"],
            "tests": [{"code": "CBC", "display": "Complete blood count"}],
            "clinical_note": key,
        }

        def attempt() -> dict[str, Any]:
            answer = self.caller.send("POST", "/v1/lab/orders", json=body, headers={"Idempotency-Key": key})
            return dict(answer.json())

        return dict(persist(self.history, {ORDER: [key]}, attempt))


def let_laboratory_take_orders(admin: Caller, network: Network, fakes_url: str) -> None:
    """Have orders sent to the laboratory's stand-in."""
    path = f"/v1/lab/partners/{network.lab_partner_id}/order-destination"
    admin.put(path, {"format": "oml-o21", "url": f"{fakes_url}/laboratory/hl7"})
