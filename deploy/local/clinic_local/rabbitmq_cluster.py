"""Several brokers on one machine as one cluster, as deployments have them: to see what the loss of one costs."""

import os
import secrets
import signal
from pathlib import Path

from clinic_local.paths import private_dir, run_dir
from clinic_local.ports import PortBook
from clinic_local.processes import GuardedProcess
from clinic_local.rabbitmq import Membership, Rabbit, RabbitServer


class Cluster:
    """Nodes that are started one after the other, each joining the first; `kill` and `start` by their number."""

    def __init__(self, root: Path, *, size: int = 3) -> None:
        self._root = root
        self._nodes = [f"clinic-{number}" for number in range(size)]
        ports = PortBook(run_dir(root) / "ports.json")
        epmd_port, cookie = ports.take("epmd"), secrets.token_hex(16)
        self._rabbits = [
            Rabbit(
                root,
                ports=PortBook(run_dir(root) / f"ports-{node}.json"),
                membership=Membership(epmd_port, cookie, node, self._nodes[0] if number else None),
            )
            for number, node in enumerate(self._nodes)
        ]
        self._names: GuardedProcess = self._rabbits[0].name_server(epmd_port, run_dir(root))
        self.servers: list[RabbitServer] = []
        for number in range(size):
            self.servers.append(self._started(number))

    @property
    def amqp_urls(self) -> str:
        """All nodes, as `CLINIC_AMQP_URL` takes them."""
        return ",".join(server.amqp_url for server in self.servers)

    def number_of(self, node: str) -> int:
        """Return the number of a node by the name that the broker has for it."""
        return self._nodes.index(node.partition("@")[0])

    def kill(self, number: int) -> None:
        server = self.servers[number]
        if server.pid is not None:
            os.kill(server.pid, signal.SIGKILL)
        server.stop()

    def start(self, number: int) -> None:
        self.servers[number] = self._started(number)

    def stop(self) -> None:
        for server in self.servers:
            if server.process is not None:
                server.process.ask_to_stop()
        for server in self.servers:
            server.stop()
        self._names.stop()

    def _started(self, number: int) -> RabbitServer:
        data = private_dir(run_dir(self._root) / self._nodes[number])
        return self._rabbits[number].start(data, durable=True)
