"""The cash desk: cash and the card terminal, within shifts that are opened, counted and closed.

What a cashier takes or gives back is money at once: there is no provider to ask. Every sum is a movement of the
ledger, so the desk's account always says what must be in the drawer.
"""
