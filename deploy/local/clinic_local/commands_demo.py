"""`clinic demo`: one patient's journey on the running system; exit status 1 if anything is off."""

import os
import sys

import httpx
from clinic_shared import contracts
from rich.console import Console

from clinic_local import modules
from clinic_local.api_client import ApiError
from clinic_local.commands_seed import seed
from clinic_local.demo_journey import Journey, JourneyError
from clinic_local.demo_network import Network
from clinic_local.errors import SetupError
from clinic_local.state import clinic_url, read_env, refuse_production, root


def demo() -> None:
    """Tell one patient's journey live, with the events it causes."""
    refuse_production("demo")
    url = clinic_url()
    here = modules.running_here(root())
    if left_out := [name for name in contracts.load().services if name not in here]:
        raise SetupError(
            "demo",
            f"the journey leads through all services, and {', '.join(left_out)} was left out",
            "make up",
        )
    network = Network.read(root())
    if network is None:
        seed()
        network = Network.read(root())
    if network is None:
        raise SetupError("demo", "there is no demo network", "make seed")
    fakes_url = os.environ.get("CLINIC_FAKES_URL") or read_env(root())["CLINIC_FAKES_URL"]
    # Without a terminal, wide enough for its lines: a log isn't read through a keyhole.
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 110)
    journey = Journey(network, url, fakes_url, root(), console)
    try:
        went_well = journey.travel()
    except (ApiError, JourneyError, httpx.HTTPError) as error:
        raise SetupError("demo", str(error), "make status, then make logs") from error
    console.print("\nThe journey went well." if went_well else "\n[red]Something is off.[/red]")
    sys.exit(0 if went_well else 1)
