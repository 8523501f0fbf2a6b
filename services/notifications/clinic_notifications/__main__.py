from clinic_shared.main import main

from clinic_notifications.app import service

main(service)
