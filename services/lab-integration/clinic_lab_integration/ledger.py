"""How what laboratories send is counted: by patient group, each with what became of it."""

from clinic_shared.inbound.accounts import Interface
from clinic_shared.intake import intake_table
from sqlalchemy import select

from clinic_lab_integration.tables import lab_unit

FROM_LABORATORIES = Interface(
    fates=select(lab_unit.c.message_id.label("item_id"), lab_unit.c.disposition, lab_unit.c.reason),
    parts=intake_table.c.attributes["groups"].as_integer(),
    partner=intake_table.c.attributes["partner_id"].as_string(),
)
"""A message that isn't processed yet tells its number of groups itself, by the note that was made before the answer."""
