from clinic_shared.main import main

from clinic_audit.app import service

main(service)
