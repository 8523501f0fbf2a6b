"""The export for accounting (1C): what was sold, paid, refunded, set off and written off, as documents.

A document's GUID is ours for ever and its version counts up, so that whoever imports a day again changes nothing,
and a later export brings what has changed since.
"""
