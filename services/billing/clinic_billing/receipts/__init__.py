"""Fiscal receipts (54-FZ, FFD 1.2): exactly one for each movement of money, and an alarm for one that is late.

A movement owes its receipt from the moment it is booked: the database itself makes the row, in the same
transaction. `fiscalising.py` takes it to the registrar.
"""
