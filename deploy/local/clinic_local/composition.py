"""What a system consists of, as children to fork. Imports all services, so it is itself imported late."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from clinic_shared import topology
from clinic_shared.main import Role, run

from clinic_local.children import Child
from clinic_local.discovery import Code
from clinic_local.environment import Environments
from clinic_local.other_release import other_release
from clinic_local.rabbitmq import RabbitServer
from clinic_local.tasks import Task


def migrations(code: Code, environments: Environments, logs: Path) -> dict[str, Task]:
    return {
        f"migrate-{name}": Task(
            partial(run, service, "migrate"), environments.of_service(name), logs / f"migrate-{name}.log"
        )
        for name, service in code.services.items()
    }


def topology_declaration(code: Code, rabbitmq: RabbitServer, logs: Path) -> dict[str, Task]:
    declare = partial(_declare_topology, rabbitmq.amqp_url, rabbitmq.management_url, tuple(code.services))
    return {"topology": Task(declare, dict(os.environ), logs / "topology.log")}


def children(code: Code, environments: Environments, logs: Path) -> list[Child]:
    """Return services, fakes, gateway. `CLINIC_ROLES=split` gives each role a process of its own, as deployed."""
    roles: tuple[Role, ...] = ("api", "worker") if os.environ.get("CLINIC_ROLES") == "split" else ("all",)
    found = []
    for name, service in code.services.items():
        for role in roles:
            label = name if role == "all" else f"{name}-{role}"
            port = environments.worker_ports[name] if role == "worker" else environments.ports[name]
            environment = {**environments.of_service(name), "CLINIC_HTTP_PORT": str(port)}
            other = other_release(label, service.package_dir.name, role)
            target = other or partial(run, service, role)
            # Another release's worker need not answer over HTTP.
            asked = None if other and role == "worker" else port
            found.append(Child(label, "service", target, environment, logs / f"{label}.log", asked))
    if code.fakes is not None:
        environment = environments.of_fakes()
        target = partial(code.fakes, environment)
        found.append(Child("fakes", "fakes", target, environment, logs / "fakes.log", None))
    if code.gateway is not None:
        environment = environments.of_gateway()
        target = partial(code.gateway, environment)
        log, port = logs / "gateway.log", environments.gateway_port
        found.append(Child("gateway", "gateway", target, environment, log, port))
    return found


def _declare_topology(amqp_url: str, management_url: str, services: tuple[str, ...]) -> None:
    async def declare() -> list[str]:
        await topology.declare_all(amqp_url, management_url, services)
        return await topology.verify_all(amqp_url, management_url, services)

    try:
        differences = asyncio.run(declare())
    except* topology.TopologyError as errors:
        # Queues can't be changed, only made anew; in development that is the cheaper way out.
        advice = "to begin with empty queues and databases: make reset up"
        sys.exit("\n".join([*map(str, errors.exceptions), advice]))
    else:
        if differences:
            sys.exit("\n".join(differences))
