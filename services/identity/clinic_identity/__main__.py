from clinic_shared.main import main

from clinic_identity.app import service

main(service)
