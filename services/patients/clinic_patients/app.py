"""What patients is made of."""

from pathlib import Path

from clinic_shared.service import Service

from clinic_patients import api, chart_api, consumers, erasure_api, fhir
from clinic_patients.protection import PATIENT_KEYS
from clinic_patients.sealing_old import seal_patients
from clinic_patients.settings import PatientsSettings

service = Service(
    name="patients",
    package_dir=Path(__file__).parent,
    routers=(api.router, chart_api.router, erasure_api.router, fhir.router),
    handlers=consumers.handlers,
    settings=PatientsSettings,
    workers=(seal_patients,),
    encrypted=(PATIENT_KEYS,),
)
