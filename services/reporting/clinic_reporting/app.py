"""What reporting is made of."""

from pathlib import Path

from clinic_shared.rebuild import ReadModel
from clinic_shared.service import Service

from clinic_reporting import api, consumers, tables

service = Service(
    name="reporting",
    package_dir=Path(__file__).parent,
    routers=(api.router,),
    handlers=consumers.handlers,
    read_model=ReadModel(tables=tables.READ_MODEL, rebuilt_event="reporting.read-model-rebuilt.v1"),
)
