from clinic_shared.main import main

from clinic_patients.app import service

main(service)
