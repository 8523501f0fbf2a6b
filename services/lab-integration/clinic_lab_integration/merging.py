"""A merge of two patients is a barrier: what is being filed for either is finished first, what follows has one order.

Nothing filed is moved. From the commit on, identifiers and orders of the replaced record lead to the other one
(`matching.py`), a report that was begun under the one is continued under the other (`result_store.py`), and a message
that fails holds up those about both (`turns.py`).
"""

from clinic_shared import merges
from clinic_shared.database import Transaction
from clinic_shared.merges import ToldMerge

from clinic_lab_integration import store, tables, unit_store, worklist


async def take(tx: Transaction, told: ToldMerge) -> None:
    """Let two patients be one, or two again; groups that nobody could match because there were two find them now."""
    keys = await store.identifiers_of(tx, told.both)
    # In the order of all locks: matching, units, patients.
    await store.lock_matching(tx, alone=False)
    await unit_store.lock_units_wanting(tx, keys)
    await store.lock_patients(tx, told.both)
    if await merges.keep_told(tx, tables.patient_merge, told):
        await worklist.match_again(tx, keys)
