"""A process dies at each step of the way from a laboratory's message to the chart: one effect each, always.

The steps are the crash points in `clinic_shared`; the laboratory sends the same bytes until somebody
acknowledges them. A case whose point was not passed fails: it would prove nothing.
"""

from collections.abc import Callable

import pytest
from clinic_local.api_client import Caller
from clinic_local.demo_journey import apart_from_its_time
from clinic_local.testing import System

from .books import Books
from .harm import dying
from .paying import Till
from .people import Desk, Lab, Patient

LAB, PATIENTS, BILLING = "lab-integration", "patients", "billing"
STEPS = [
    # The message comes in ...
    (LAB, "intake.accept.before"),
    (LAB, "commit.before"),
    (LAB, "commit.after"),
    (LAB, "intake.durable.after"),
    # ... is read, matched and told ...
    (LAB, "intake.process.before"),
    (LAB, "intake.process.commit"),
    (LAB, "relay.publish.before"),
    (LAB, "relay.publish.after"),
    (LAB, "relay.confirm.after"),
    (LAB, "relay.mark.after"),
    # ... is filed ...
    (PATIENTS, "consumer.deliver"),
    (PATIENTS, "consumer.effect.before"),
    (PATIENTS, "commit.before"),
    (PATIENTS, "consumer.commit.after"),
    (PATIENTS, "consumer.ack.after"),
    # ... and the laboratory's ledger hears that it was.
    (PATIENTS, "relay.publish.before"),
    (PATIENTS, "relay.publish.after"),
    (PATIENTS, "relay.confirm.after"),
    (LAB, "consumer.deliver"),
    (LAB, "consumer.effect.before"),
    (LAB, "consumer.commit.after"),
]


@pytest.fixture(scope="module")
def interrupted(system: System, till: Till) -> str:
    """An invoice whose payment was known to the provider already when the process that asked it died.

    Made first of all: half a minute passes until others may believe that nobody is asking any more.
    """
    invoice = till.visit()
    with dying(system, BILLING, "provider.call.after"):
        till.start(invoice)
    return invoice


@pytest.fixture(scope="module")
def ordered(
    desk: Desk, books: Books, caller_of: Callable[[str], Caller], interrupted: str
) -> tuple[Patient, list[str]]:
    """A patient with an order per case, all of them heard of everywhere before the first process dies."""
    patient = desk.register()
    doctor = caller_of("dermatologist")
    numbers = [
        doctor.post(
            "/v1/lab/orders",
            {
                "patient_id": patient.patient_id,
                "partner_id": desk.network.lab_partner_id,
                "department_id": desk.network.departments["dermatology"],
                "tests": [{"code": "CBC", "display": "Complete blood count"}],
            },
        )["placer_order_number"]
        for _ in STEPS
    ]
    assert books.settle().sound
    return patient, numbers


@pytest.mark.parametrize("step", range(len(STEPS)), ids=["-".join(step) for step in STEPS])
def test_a_process_that_dies_at_any_step_costs_and_doubles_nothing(
    system: System, books: Books, lab: Lab, ordered: tuple[Patient, list[str]], step: int
) -> None:
    service, label = STEPS[step]
    patient, numbers = ordered
    with dying(system, service, label):
        key, message = lab.write(patient, numbers[step])
        acknowledgement = lab.insist(key, message)
    assert apart_from_its_time(lab.insist(key, message)) == apart_from_its_time(acknowledgement)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


@pytest.mark.parametrize("label", ["intake.durable.after", "intake.process.before", "intake.process.commit"])
def test_a_billing_process_that_dies_over_a_notification_books_it_once(
    system: System, books: Books, till: Till, label: str
) -> None:
    invoice = till.visit()
    with dying(system, BILLING, label):
        till.pay(invoice)
    verdict = books.settle()
    assert verdict.sound, f"\n{verdict}"


def test_a_billing_process_that_dies_after_asking_the_provider_does_not_ask_for_more(
    till: Till, interrupted: str
) -> None:
    payment = till.pay(interrupted)
    assert till.asked_for(payment) == 1
