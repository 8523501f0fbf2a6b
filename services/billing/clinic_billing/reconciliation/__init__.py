"""Once a day: provider, ledger, receipts and the bank's statement are compared, each with the ledger.

What doesn't agree is a row of a work list, until a later run agrees or a person settles it with a note.
"""
