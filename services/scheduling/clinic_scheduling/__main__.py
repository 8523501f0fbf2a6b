from clinic_shared.main import main

from clinic_scheduling.app import service

main(service)
