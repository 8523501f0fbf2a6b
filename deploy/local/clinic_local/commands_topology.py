"""`clinic topology`: what must exist at the broker. Declared, read back, or printed for whoever may apply it.

The broker is the one that `CLINIC_AMQP_URL` names (in the environment or in a file of `CLINIC_SECRETS_DIR`),
else the one of the system that runs here.
"""

import asyncio
import logging
import os
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import structlog
import typer
from clinic_shared import contracts, leftovers, topology
from clinic_shared.broker import BrokerUnavailableError
from clinic_shared.secret_files import with_secret_files
from clinic_shared.topology import Topology, TopologyError

from clinic_local import modules
from clinic_local.errors import SetupError
from clinic_local.operations import AsJson, plural, print_json
from clinic_local.state import read_env, root

app = typer.Typer(help="Exchanges, queues, bindings and policies at the broker.", no_args_is_help=True)

Result = TypeVar("Result")
Services = Annotated[
    str | None, typer.Option("--services", help="installed ones, comma separated; all if left out")
]


@dataclass(frozen=True)
class _Broker:
    amqp_url: str
    management_url: str | None

    @property
    def address(self) -> str:
        """Return where it is, without the credentials."""
        parts = urlsplit(self.amqp_url.split(",", 1)[0])
        return f"{parts.netloc.rpartition('@')[2]}{parts.path}"


@app.command()
def declare(services: Services = None, *, as_json: AsJson = False) -> None:
    """Declare everything for the installed services. What is there already stays as it is."""
    broker, installed = _broker(), _installed(services)
    declared = _run(broker, topology.declare_all(broker.amqp_url, broker.management_url, installed))
    has_policies = broker.management_url is not None
    if as_json:
        print_json(_counts(declared) | {"policies_applied": has_policies})
        return
    print(f"Declared at {broker.address}: {_summary(declared)}")
    if not has_policies:
        print("The policies are left to you (no CLINIC_AMQP_MANAGEMENT_URL): clinic topology print")


@app.command()
def verify(
    services: Services = None,
    *,
    within_seconds: Annotated[
        float, typer.Option("--within", min=0, help="seconds in which a difference may still go away")
    ] = topology.SETTLE_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Read back what is in effect. Exit status 1 when something differs."""
    broker, installed = _broker(), _installed(services)
    differences = _run(
        broker,
        topology.verify_all(broker.amqp_url, broker.management_url, installed, settle_seconds=within_seconds),
    )
    is_full_check = broker.management_url is not None
    if as_json:
        print_json({"differences": differences, "only_existence_checked": not is_full_check})
    elif differences:
        print("\n".join(differences))
        print(
            f"{plural(len(differences), 'difference')} at {broker.address}. What to do: clinic topology declare"
        )
    else:
        print(f"As it should be at {broker.address}: {_summary(Topology.of(installed))}")
    if not is_full_check and not as_json:
        print("Only whether the queues exist: the rest needs CLINIC_AMQP_MANAGEMENT_URL.")
    if differences:
        raise typer.Exit(1)


@app.command()
def prune(
    services: Services = None, *, yes: Annotated[bool, typer.Option("--yes", help="don't ask")] = False
) -> None:
    """Delete the queues of services that aren't installed any more, with what waits in them."""
    broker, installed = _broker(), _installed(services)
    wanted = {queue.name for queue in Topology.of(installed).queues}
    strangers = [queue.name for queue in Topology.of().queues if queue.name not in wanted]
    there = _run(broker, leftovers.existing(broker.amqp_url, strangers))
    if not there:
        print(f"No queue at {broker.address} belongs to a service that was left out.")
        return
    print("\n".join(there))
    if not yes:
        typer.confirm(f"Delete {plural(len(there), 'queue')} at {broker.address}?", abort=True)
    deleted = _run(broker, leftovers.delete(broker.amqp_url, there))
    print(
        f"Deleted {plural(len(there), 'queue')} and {plural(deleted, 'message')}. The event logs keep the events."
    )


@app.command("print")
def print_definitions(services: Services = None) -> None:
    """Print the definitions (JSON) to import where we may not declare: rabbitmqctl import_definitions."""
    installed = _installed(services)
    print(topology.print_text(_amqp_url() or "", installed))


def _amqp_url() -> str | None:
    return _given("CLINIC_AMQP_URL") or read_env(root()).get("CLINIC_PRIVATE_AMQP_URL")


def _given(name: str) -> str | None:
    return with_secret_files(os.environ).get(name) or None


def _broker() -> _Broker:
    url = _amqp_url()
    if url is None:
        raise SetupError(
            "topology", "nothing runs here and CLINIC_AMQP_URL isn't set", "Start it with: make up"
        )
    if not all(_is_amqp_url(node) for node in url.split(",")):
        raise SetupError("topology", "CLINIC_AMQP_URL isn't an amqp:// URL")
    management_url = _given("CLINIC_AMQP_MANAGEMENT_URL")
    if management_url is None and _given("CLINIC_AMQP_URL") is None:
        management_url = read_env(root()).get("CLINIC_PRIVATE_AMQP_MANAGEMENT_URL")
    return _Broker(url, management_url)


def _is_amqp_url(url: str) -> bool:
    parts = urlsplit(url.strip())
    try:
        return parts.scheme in {"amqp", "amqps"} and parts.port != 0
    except ValueError:
        return False


def _installed(services: str | None) -> tuple[str, ...]:
    """Return the services that were named, those of `CLINIC_SUBSCRIBED_SERVICES`, or those that run here."""
    known = contracts.load().services
    named = os.environ.get("CLINIC_SUBSCRIBED_SERVICES", "") if services is None else services
    chosen = modules.names(named)
    if unknown := [name for name in chosen if name not in known]:
        raise SetupError("topology", f"there is no service {unknown[0]}", f"There are: {', '.join(known)}")
    if not chosen and not os.environ.get("CLINIC_AMQP_URL"):
        chosen = modules.running_here(root())
    return chosen


def _run(broker: _Broker, work: Coroutine[Any, Any, Result]) -> Result:
    try:
        with _quiet():
            return asyncio.run(work)
    except TopologyError as error:
        raise SetupError("topology", str(error)) from error
    except BrokerUnavailableError as error:
        raise SetupError(
            "topology", f"{broker.address} can't be used ({_client_error(error)})", "Look at: make status"
        ) from error
    except httpx.HTTPStatusError as error:
        status = error.response.status_code
        raise SetupError("topology", f"the management API answered {status}") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SetupError("topology", "the management API can't be reached", "Look at: make status") from error


def _client_error(error: BaseException) -> str:
    """Return what the client library called it."""
    while isinstance(error, BrokerUnavailableError) and error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the runtime's log lines out of a command's output: what matters in them is in its report."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        structlog.configure(**before)


def _counts(declared: Topology) -> dict[str, int]:
    return {
        "exchanges": len(declared.exchanges),
        "queues": len(declared.queues),
        "bindings": sum(len(queue.bindings) for queue in declared.queues),
        "policies": len(declared.policies),
    }


def _summary(declared: Topology) -> str:
    return ", ".join(f"{count} {name}" for name, count in _counts(declared).items())
