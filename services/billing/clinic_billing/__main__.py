from clinic_shared.main import main

from clinic_billing.app import service

main(service)
