"""What referrals is made of."""

from pathlib import Path

from clinic_shared.service import Service

from clinic_referrals import api, consumers
from clinic_referrals.tables import WORDS

service = Service(
    name="referrals",
    package_dir=Path(__file__).parent,
    routers=(api.router,),
    handlers=consumers.handlers,
    encrypted=(WORDS.kind,),
)
