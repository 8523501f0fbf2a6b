"""SMART App Launch's resource scopes (`patient/*.rs`), in terms of our permissions.

A scope of one resource is understood only where a permission covers that resource and nothing more: whoever
lets an app see appointments doesn't let it see the chart. `.read` is version 1's word for `.rs`.
"""

from collections.abc import Iterable

_PERMISSIONS = {
    "Patient": "patients.read",
    "Appointment": "appointments.read",
    "ServiceRequest": "referrals.read",
    "Consent": "consents.read",
    "Invoice": "invoices.read",
}
_WHOLE_RECORD = frozenset({*_PERMISSIONS.values(), "chart.read", "results.read"})

SMART_SCOPES = {
    f"patient/{resource}.{verb}": permissions
    for resource, permissions in {
        "*": _WHOLE_RECORD,
        **{name: frozenset({permission}) for name, permission in _PERMISSIONS.items()},
    }.items()
    for verb in ("rs", "read")
}
"""What each lets an app do, as far as the patient who lets it may: of their own record only."""


def permissions_in(scopes: Iterable[str]) -> frozenset[str]:
    """Return scopes with SMART's replaced by the permissions that they stand for."""
    return frozenset(
        permission for scope in scopes for permission in SMART_SCOPES.get(scope, frozenset({scope}))
    )
