"""The keeper of a test run's servers: `python -m clinic_local.test_servers FOLDER PID`.

Starts them, writes their URLs to `FOLDER/urls.json`, and stops them when the process PID has ended.
"""

import json
import sys
import time
from pathlib import Path

from clinic_local.paths import CHECKOUT
from clinic_local.processes import is_running
from clinic_local.servers import start_test_servers


def main() -> None:
    folder, controller = Path(sys.argv[1]), int(sys.argv[2])
    try:
        servers = start_test_servers(CHECKOUT)
    except BaseException:
        (folder / "failed").touch()
        raise
    try:
        urls = {
            "postgres_admin_url": servers.postgres_admin_url,
            "amqp_url": servers.amqp_url,
            "management_url": servers.management_url,
        }
        draft = folder / "urls.json.draft"
        draft.write_text(json.dumps(urls), encoding="utf-8")
        draft.rename(folder / "urls.json")
        while is_running(controller):
            time.sleep(0.5)
    finally:
        servers.stop()


if __name__ == "__main__":
    main()
