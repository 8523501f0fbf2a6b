from clinic_shared.main import main

from clinic_lab_integration.app import service

main(service)
