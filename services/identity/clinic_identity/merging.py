"""Merged patients: a login of any of a person's records reaches all of them, and only its own once that is undone.

Nothing is moved: each login stays with the record that it was made for, and a token names what is the person's now.
"""

from uuid import UUID

from clinic_shared import merges
from clinic_shared.database import Transaction
from clinic_shared.merges import ToldMerge

from clinic_identity import store, tables
from clinic_identity.domain import Account
from clinic_identity.sessions import end_sessions

UNMERGED = "patients-unmerged"


async def take(tx: Transaction, told: ToldMerge) -> None:
    """Keep a merge; of one that is undone, end the sessions at once, whose tokens reach another patient's record."""
    before = await merges.records_of(tx, told.target_patient_id)
    # Under the accounts' locks nobody logs in by the state of before.
    accounts = await store.lock_accounts_of_patients(tx, {*before, *told.both})
    kept = await merges.keep_told(tx, tables.patient_merge, told)
    if kept and told.source_patient_id in before and told.status != "merged":
        for account in accounts:
            await end_sessions(tx, account, reason_code=UNMERGED)


async def lock_accounts_of_person(tx: Transaction, patient_id: UUID) -> list[Account]:
    """Return the logins of all records of the person: those in use first, and of these the record's own."""
    found = await store.lock_accounts_of_patients(tx, await merges.records_of(tx, patient_id))
    return sorted(found, key=lambda one: (not one.active, one.patient_id != patient_id, one.account_id))
