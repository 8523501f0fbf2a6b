"""Messages that could not take effect: seen, tried, handled again, corrected, or let be for a reason.

What is decided is decided under the lock of the message's row, once, and audited. Nothing here is
published again: a message is handled by the one consumer that failed, with its origin unchanged.
"""
