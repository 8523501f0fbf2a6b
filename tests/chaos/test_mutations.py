"""Each safeguard that is switched off makes the test fail that stands for it: the tests have teeth."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest
from clinic_local.paths import CHECKOUT
from clinic_shared.testing import Servers

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

MESSAGING = "shared/tests/messaging"
DEAD_LETTERS = "shared/tests/dead_letters"
GUARDS = {
    "inbox-off": f"{MESSAGING}/test_consumer.py::test_a_duplicate_has_one_effect",
    "confirms-off": f"{MESSAGING}/test_relay.py::test_order_survives_a_full_queue_and_nothing_is_lost",
    "mandatory-off": f"{MESSAGING}/test_relay.py::test_an_unroutable_event_is_kept_and_blocks_only_its_key",
    "order-off": f"{MESSAGING}/test_consumer.py::"
    "test_what_waits_for_a_lane_takes_effect_in_one_transaction_in_order_per_key",
    "idempotency-off": "shared/tests/web/test_idempotency.py::"
    "test_a_repeated_write_gets_the_same_answer_and_one_effect",
    "ack-before-commit": f"{MESSAGING}/test_consumer.py::"
    "test_a_message_is_the_brokers_until_its_effect_is_committed",
    "ack-before-durable": f"{MESSAGING}/test_intake.py::"
    "test_with_both_down_an_item_is_refused_and_stored_nowhere",
    "decide-twice": f"{DEAD_LETTERS}/test_redrive.py::"
    "test_two_people_who_redrive_and_discard_the_same_at_once_decide_each_message_once",
    "copy-beside-original": f"{DEAD_LETTERS}/test_corrections.py::"
    "test_the_original_can_no_longer_take_effect_beside_its_copy",
    "certificate-binding-off": "gateway/tests/test_client_certificates.py::"
    "test_a_bound_token_counts_with_its_certificate_and_with_nothing_else",
    "commit-after-response": "shared/tests/web/test_routing.py::test_what_is_answered_is_committed_already",
}
SHOWN_BESIDE_THEIR_SAFEGUARD = {
    "relay-fence-off": f"{MESSAGING}/test_relays.py",
    "relay-lease-off": f"{MESSAGING}/test_relays.py",
    "queue-unmarked": f"{MESSAGING}/test_intake_order.py",
    "intake-custody-off": f"{MESSAGING}/test_intake_custody.py",
}
GUARDS_IN_DATABASES = {
    "exclusion-off": "services/scheduling/tests/test_booking.py::"
    "test_the_constraint_refuses_an_overlap_even_when_the_check_is_blind",
    "receipts-off": "services/billing/tests/test_receipts.py::"
    "test_the_movement_itself_owes_the_receipt_whoever_books_it",
}
ALL_TESTS = {*GUARDS.values(), *GUARDS_IN_DATABASES.values()}
PASSED, TESTS_FAILED = 0, 1
IMPATIENT = {"CLINIC_TEST_PATIENCE_SECONDS": "30"}
"""Where what is waited for never comes."""


@pytest.fixture(scope="module")
def environment(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a pytest inside this one, on the servers of this one."""
    urls = tmp_path_factory.mktemp("servers") / "urls.json"
    urls.write_text(json.dumps(asdict(servers)), encoding="utf-8")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CLINIC_", "PYTEST_"))}
    return {**kept, "CLINIC_TEST_SERVERS": str(urls), "PYTHONPATH": str(CHECKOUT)}


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rfE", *arguments]
    return subprocess.run(
        command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False, timeout=800
    )


Results = dict[str, Future[subprocess.CompletedProcess[str]]]


@pytest.fixture(scope="module")
def results(environment: dict[str, str]) -> Iterator[Results]:
    """All runs side by side: most of their time is waiting for what, with a safeguard off, never comes."""
    with ThreadPoolExecutor(3) as pool:
        started = {"none": pool.submit(run, environment, *sorted(ALL_TESTS))}
        started |= {
            mutation: pool.submit(run, {**environment, **IMPATIENT, "CLINIC_MUTATION": mutation}, test)
            for mutation, test in GUARDS.items()
        }
        for guard, test in GUARDS_IN_DATABASES.items():
            started[guard] = pool.submit(run, environment, "-p", "tests.chaos.without_guards", test)
        yield started


def test_with_every_safeguard_on_the_tests_pass(results: Results) -> None:
    result = results["none"].result()
    assert result.returncode == PASSED, result.stdout
    assert f"{len(ALL_TESTS)} passed" in result.stdout


@pytest.mark.parametrize(("mutation", "test"), [*GUARDS.items(), *GUARDS_IN_DATABASES.items()])
def test_with_a_safeguard_off_the_test_that_stands_for_it_fails(
    results: Results, mutation: str, test: str
) -> None:
    result = results[mutation].result()
    assert result.returncode == TESTS_FAILED, result.stdout
    assert f"FAILED {test}" in result.stdout


def test_every_mutation_that_the_code_knows_has_its_test() -> None:
    known = {
        name
        for file in Path(CHECKOUT, "shared", "clinic_shared").rglob("*.py")
        for name in re.findall(r'mutated\("([a-z-]+)"\)', file.read_text(encoding="utf-8"))
    }
    assert known == GUARDS.keys() | SHOWN_BESIDE_THEIR_SAFEGUARD.keys()
    for mutation, tests in SHOWN_BESIDE_THEIR_SAFEGUARD.items():
        assert f'"{mutation}"' in Path(CHECKOUT, tests).read_text(encoding="utf-8")
