"""What patients is made of."""

from pathlib import Path

from clinic_shared.service import Service
from clinic_shared.timers import Timers

from clinic_patients import (
    api,
    break_glass,
    break_glass_api,
    care_telling,
    chart_api,
    consumers,
    erasure_api,
    excerpts_api,
    fhir,
    merge_api,
)
from clinic_patients.exports import api as exports_api
from clinic_patients.exports import exporting
from clinic_patients.exports.store import EXPORT_KEYS
from clinic_patients.protection import PATIENT_KEYS
from clinic_patients.sealing_old import seal_patients
from clinic_patients.settings import PatientsSettings

timers = Timers()
for group in (break_glass.timers, care_telling.timers, exporting.timers):
    for kind, handler in group.handlers.items():
        timers.on(kind)(handler)

service = Service(
    name="patients",
    package_dir=Path(__file__).parent,
    routers=(
        api.router,
        excerpts_api.router,
        chart_api.router,
        break_glass_api.router,
        erasure_api.router,
        merge_api.router,
        exports_api.router,
        fhir.router,
    ),
    handlers=consumers.handlers,
    timers=timers,
    settings=PatientsSettings,
    workers=(seal_patients,),
    encrypted=(PATIENT_KEYS, EXPORT_KEYS),
)
