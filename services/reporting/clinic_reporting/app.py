"""What reporting is made of."""

from pathlib import Path

from clinic_shared.service import Service

from clinic_reporting import api, consumers

service = Service(
    name="reporting",
    package_dir=Path(__file__).parent,
    routers=(api.router,),
    handlers=consumers.handlers,
)
