"""`clinic seed`: fill the running system with the demo network, once."""

from clinic_local.api_client import ApiError
from clinic_local.demo_network import STAFF, Builder, Network
from clinic_local.errors import SetupError
from clinic_local.state import clinic_url, refuse_production, root


def seed() -> None:
    """Make the demo network: a centre, departments, staff, services, prices, a lab."""
    refuse_production("seed")
    network = Network.read(root())
    if network is None:
        try:
            network = Builder(clinic_url(), root()).build()
        except ApiError as error:
            raise SetupError("seed", str(error), "Begin anew: make reset up") from error
        print("The demo network is there.")
    else:
        print("The demo network is there already.")
    print_logins(network)


def print_logins(network: Network) -> None:
    print(f"logins (password of all but the administrator: {network.password}):")
    for person in STAFF:
        print(f"  {network.login_of(person)}")
    print(f"  {network.login_of('admin')}   password: .run/secrets/demo-admin-password")
