from clinic_shared.main import main

from clinic_referrals.app import service

main(service)
