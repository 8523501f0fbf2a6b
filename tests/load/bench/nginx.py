"""nginx and wrk: what the gateway is measured with. From the machine, or from unpacked packages."""

import asyncio
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from clinic_local.download import library_path, unpacked_packages
from clinic_local.paths import CHECKOUT, cache_dir
from clinic_local.ports import LOOPBACK

from .servers import free_port, until_ready

BODY = '{"items":[' + ",".join(['{"id":"00000000-0000-7000-8000-000000000000"}'] * 20) + "]}"
"""A small page of results, 900 bytes."""
_CONFIGURATION = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000;
  {upstream}
  server {{ listen {address}; location / {{ {location} }} }}
}}
"""


@dataclass(frozen=True)
class Program:
    path: str
    environment: dict[str, str]


def program(name: str) -> Program:
    """Return a program of this name. Raises SetupError when there is none and none can be downloaded."""
    found = shutil.which(name)
    if found is not None:
        return Program(found, dict(os.environ))
    root = unpacked_packages(cache_dir(CHECKOUT), name, [name])
    binary = next(path for path in root.rglob(f"bin/{name}")) if name == "wrk" else root / "usr/sbin" / name
    return Program(str(binary), {**os.environ, "LD_LIBRARY_PATH": library_path(root)})


@asynccontextmanager
async def nginx(*, proxy_to: str | None = None) -> AsyncIterator[str]:
    """Run nginx with one worker: it answers BODY, or passes on to an address. Yields its address."""
    address = f"{LOOPBACK}:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="polyclinic-nginx-") as folder:
        configuration = _CONFIGURATION.format(
            folder=folder,
            address=address,
            user="user root;" if os.getuid() == 0 else "",
            upstream=f"upstream us {{ server {proxy_to}; keepalive 64; }}" if proxy_to else "",
            location='proxy_pass http://us; proxy_http_version 1.1; proxy_set_header Connection "";'
            if proxy_to
            else f"default_type application/json; return 200 '{BODY}';",
        )
        process = _start_nginx(Path(folder), configuration)
        try:
            await until_ready(f"http://{address}/", process)
            yield address
        finally:
            process.terminate()
            process.wait()


def _start_nginx(folder: Path, configuration: str) -> subprocess.Popen[bytes]:
    file = folder / "nginx.conf"
    file.write_text(configuration, encoding="utf-8")
    found = program("nginx")
    return subprocess.Popen([found.path, "-p", str(folder), "-c", str(file)], env=found.environment)


@dataclass(frozen=True)
class Load:
    per_second: float
    p50_ms: float


async def wrk(url: str, *, connections: int, seconds: float, token: str | None = None) -> Load:
    """Ask for one URL as fast as the answers come. Raises AssertionError if any answer isn't 2xx."""
    async with aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with http.get(url, headers=headers) as answer:
            assert answer.ok, await answer.text()
    found = program("wrk")
    options = ["--latency", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--timeout", "5s"]
    options += ["-H", f"Authorization: Bearer {token}"] if token else []
    process = await asyncio.create_subprocess_exec(
        found.path, *options, url, env=found.environment, stdout=asyncio.subprocess.PIPE
    )
    output = (await process.communicate())[0].decode()
    assert "Non-2xx" not in output, output
    rate = re.search(r"Requests/sec:\s+([\d.]+)", output)
    middle = re.search(r"50%\s+([\d.]+)(us|ms|s)", output)
    assert rate, output
    assert middle, output
    return Load(float(rate[1]), float(middle[1]) * {"us": 0.001, "ms": 1, "s": 1000}[middle[2]])
