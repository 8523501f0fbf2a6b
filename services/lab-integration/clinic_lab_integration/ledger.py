"""What became of every patient group of every message that got an answer, each disposition by a query of its own."""

from clinic_shared.database import Transaction
from clinic_shared.intake import intake_table
from clinic_shared.ledger import Dispositions
from sqlalchemy import ColumnElement, case, func, select

from clinic_lab_integration.domain import Disposition
from clinic_lab_integration.messages import INTERFACE
from clinic_lab_integration.tables import lab_unit


async def count_dispositions(tx: Transaction, interface: str = INTERFACE) -> Dispositions:
    """Count an interface's groups. Those of a message that isn't processed yet are known from its own note."""
    groups = intake_table.c.attributes["groups"].as_integer()
    waits = intake_table.c.state
    [taken] = await tx.fetch_all(
        select(
            _sum(groups).label("groups"),
            _sum(groups * intake_table.c.duplicates).label("copies"),
            _sum(case((waits == "parked", groups))).label("parked"),
            _sum(case((waits == "received", groups))).label("received"),
        ).where(intake_table.c.interface == interface)
    )
    counted = await tx.fetch_all(
        select(lab_unit.c.disposition, func.count().label("units"))
        .where(lab_unit.c.interface == interface)
        .group_by(lab_unit.c.disposition)
    )
    units = {Disposition(row.disposition): row.units for row in counted}
    return Dispositions(
        answered=int(taken.groups + taken.copies),
        applied=units.get(Disposition.APPLIED, 0),
        parked=units.get(Disposition.PARKED, 0) + int(taken.parked),
        rejected=units.get(Disposition.REJECTED, 0),
        superseded=units.get(Disposition.SUPERSEDED, 0),
        duplicate=units.get(Disposition.DUPLICATE, 0) + int(taken.copies),
        discarded=units.get(Disposition.DISCARDED, 0),
        in_flight=units.get(Disposition.IN_FLIGHT, 0) + int(taken.received),
    )


def _sum(counted: ColumnElement[int]) -> ColumnElement[int]:
    return func.coalesce(func.sum(counted), 0)
