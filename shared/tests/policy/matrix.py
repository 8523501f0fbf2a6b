"""The role and data matrix once more, as a table to read, and the plainest possible reading of it.

Written by hand beside `contracts/policy/access.yaml` on purpose: two statements of the same rules that a test
holds to each other. `rel` is a care relationship, `place` one's departments and centres.
"""

from datetime import datetime

from clinic_shared.policy import Record
from clinic_shared.principal import Principal

ROLES = (
    "patient",
    "doctor",
    "registrar",
    "management",
    "system-administrator",
    "biller",
    "privacy-officer",
    "lab",
    "records-officer",
)

TABLE = """
patient-logins.manage         -    -               all    -    -  -      -    -   -
patients.search               -    rel             place  -    -  -      -    -   all
patients.read                 own  rel             place  -    -  -      -    -   all
patients.read-masked          -    -               -      -    all  -    -    -   -
patients.read-minimal         -    -               -      -    -  place  -    -   -
patients.register             -    -               place  -    -  -      -    -   -
patients.update               own  rel             place  -    -  -      -    -   -
patients.erase                -    -               -      -    -  -      all  -   -
patients.export               own  -               -      -    -  -      -    -   all
preferences.manage            own  -               place  -    -  -      -    -   -
consents.read                 own  rel             place  -    -  -      all  -   all
consents.write                own  -               place  -    -  -      -    -   -
chart.read                    own  rel             -      -    -  -      -    -   -
encounters.write              -    rel             -      -    -  -      -    -   -
prescriptions.write           -    rel             -      -    -  -      -    -   -
break-glass.start             -    all             -      -    -  -      -    -   -
break-glass.review            -    -               -      -    -  -      all  -   -
results.read                  own  rel             -      -    -  -      -    -   -
lab-orders.read               -    own+rel+place   -      -    -  -      -    -   -
lab-orders.place              -    place           -      -    -  -      -    -   -
lab-messages.read             -    all             -      -    -  -      -    -   -
lab-messages.send             -    -               -      -    -  -      -    own -
lab-worklist.manage           -    all             all    -    -  -      -    -   -
critical-results.acknowledge  -    own+place       -      -    -  -      -    -   -
appointments.read             own  own+rel         place  -    -  -      -    -   -
appointments.book             own  own+rel         place  -    -  -      -    -   -
appointments.manage           -    own+rel         place  -    -  -      -    -   -
referrals.read                own  own+rel+place   place  -    -  -      -    -   -
referrals.create              -    place           -      -    -  -      -    -   -
referrals.answer              -    place           -      -    -  -      -    -   -
messages.read                 own  -               place  -    -  -      -    -   -
invoices.read                 own  -               -      -    -  place  -    -   -
invoices.create               -    -               place  -    -  place  -    -   -
invoices.manage               -    -               -      -    -  place  -    -   -
payments.read                 own  -               -      -    -  place  -    -   -
payments.make                 own  -               -      -    -  -      -    -   -
payments.manage               -    -               -      -    -  place  -    -   -
payments.refund               -    -               -      -    -  place  -    -   -
prices.manage                 -    -               -      -    -  place  -    -   -
reports.read                  -    -               -      agg  -  -      -    -   -
audit.read                    -    -               -      -    -  -      all  -   -
suspicions.review             -    -               -      -    -  -      all  -   -
breaches.manage               -    -               -      -    -  -      all  -   -
access-log.read               own  -               -      -    -  -      all  -   -
"""

MATRIX: dict[str, dict[str, set[str]]] = {
    permission: {role: set(cell.split("+")) - {"-"} for role, cell in zip(ROLES, cells, strict=True)}
    for permission, *cells in (line.split() for line in TABLE.strip().splitlines())
}


def allows(who: Principal, permission: str, record: Record, now: datetime) -> bool:
    """Say the same as the policy, in the most pedestrian way."""
    if permission not in who.scopes:
        return False
    if who.kind == "client" and not who.roles:
        return _stands_at(who, record, now)
    words = set().union(*(MATRIX[permission].get(role, set()) for role in who.roles))
    told = [
        "all" in words,
        "own" in words and _owns(who, record),
        "rel" in words and _treats(who, record, now),
        "place" in words and _stands_at(who, record, now),
        "agg" in words and record.aggregate and _at_its_places(who, record),
    ]
    return any(told)


def _owns(who: Principal, record: Record) -> bool:
    if who.kind == "patient":
        return who.patient_id is not None and who.patient_id == record.patient_id
    return any(owner == who.subject for owner in record.owner_ids)


def _treats(who: Principal, record: Record, now: datetime) -> bool:
    for relation in record.relations:
        begun = relation.begins_at <= now
        over = relation.ends_at is not None and relation.ends_at <= now
        personal = relation.practitioner_id is not None and relation.practitioner_id == who.subject
        of_department = relation.department_id is not None and relation.department_id in who.department_ids
        if begun and not over and (personal or of_department):
            return True
    return False


def _at_its_places(who: Principal, record: Record) -> bool:
    if who.network:
        return True
    for place in record.places:
        if place.centre_id is not None and place.centre_id in who.centre_ids:
            return True
        if place.department_id is not None and place.department_id in who.department_ids:
            return True
    return False


def _stands_at(who: Principal, record: Record, now: datetime) -> bool:
    if _at_its_places(who, record):
        return True
    for relation in record.relations if record.follows_care else ():
        if relation.ends_at is not None and relation.ends_at <= now:
            continue
        if relation.centre_id in who.centre_ids or relation.department_id in who.department_ids:
            return True
    return False
