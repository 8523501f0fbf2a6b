"""A merge of two patients is a barrier: what is being filed for either is finished first, what follows has one order.

Nothing filed is moved. From the commit on, identifiers and orders of the replaced record lead to the other one
(`matching.py`), a report that was begun under the one is continued under the other (`result_store.py`), and a message
that fails holds up those about both (`turns.py`).
"""

from clinic_shared.database import Transaction

from clinic_lab_integration import merge_store, store, unit_store, worklist
from clinic_lab_integration.merge_store import Merge


async def take(tx: Transaction, merge: Merge) -> None:
    """Let two patients be one, or two again; groups that nobody could match because there were two find them now."""
    both = [merge.source_id, merge.target_id]
    keys = await merge_store.identifiers_of(tx, both)
    # In the order of all locks: matching, units, patients.
    await store.lock_matching(tx, alone=False)
    await unit_store.lock_units_wanting(tx, keys)
    await store.lock_patients(tx, both)
    if await merge_store.keep(tx, merge):
        await worklist.match_again(tx, keys)
