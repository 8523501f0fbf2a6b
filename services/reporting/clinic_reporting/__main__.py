from clinic_shared.main import main

from clinic_reporting.app import service

main(service)
