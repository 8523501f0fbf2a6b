"""Behind a company's package index, certificates and proxy: packages come from there, by the hashes of uv.lock."""

import hashlib
import io
import ssl
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

import pytest
from clinic_local import loopback, uv
from clinic_local.errors import SetupError
from clinic_local.package_index import Indexes
from clinic_local.packages import Packages
from clinic_local.paths import CHECKOUT, cache_dir
from clinic_shared.testing_certificates import write_certificate

WHEEL = "fictitious-1.0-py3-none-any.whl"
NOBODY_THERE = "http://127.0.0.1:9"


def _wheel(answer: int = 42) -> bytes:
    metadata = "Metadata-Version: 2.1\nName: fictitious\nVersion: 1.0\n"
    files = {
        "fictitious.py": f"ANSWER = {answer}\n",
        "fictitious-1.0.dist-info/METADATA": metadata,
        "fictitious-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "fictitious-1.0.dist-info/RECORD": "",
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            # With a date of its own, so that it is the same whenever it is made.
            archive.writestr(zipfile.ZipInfo(name), text)
    return content.getvalue()


class Company:
    """A package index; also a proxy for http, which answers for any host."""

    def __init__(self, wheel: bytes, context: ssl.SSLContext | None) -> None:
        self.asked_for: list[str] = []
        company = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                company.asked_for.append(self.path)
                is_wheel = self.path.endswith(WHEEL)
                page = f'<a href="../../files/{WHEEL}">{WHEEL}</a>'.encode()
                body = wheel if is_wheel else page
                self.send_response(200)
                self.send_header("Content-Type", "application/zip" if is_wheel else "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815 - the library's name

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if context is not None:
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(autouse=True)
def _unconfigured(monkeypatch, tmp_path):
    """This machine's own configuration and caches are left out."""
    for name in (
        *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"),
        *("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "VIRTUAL_ENV"),
        *("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "no_proxy"),
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")


@pytest.fixture
def checkout(tmp_path) -> Packages:
    """A checkout whose lock file names PyPI for the one package that it needs."""
    root = tmp_path / "checkout"
    root.mkdir()
    (root / "pyproject.toml").write_text(
        '[project]\nname = "checkout"\nversion = "0"\nrequires-python = ">=3.11"\n'
        'dependencies = ["fictitious"]\n[tool.uv]\npackage = false\n'
    )
    digest = hashlib.sha256(_wheel()).hexdigest()
    (root / "uv.lock").write_text(
        f"""version = 1
requires-python = ">=3.11"

[[package]]
name = "checkout"
version = "0"
source = {{ virtual = "." }}
dependencies = [{{ name = "fictitious" }}]

[package.metadata]
requires-dist = [{{ name = "fictitious" }}]

[[package]]
name = "fictitious"
version = "1.0"
source = {{ registry = "https://pypi.org/simple" }}
wheels = [
    {{ url = "https://files.pythonhosted.org/packages/{WHEEL}", hash = "sha256:{digest}" }},
]
"""
    )
    return Packages(root)


@pytest.fixture(scope="module")
def uv_program() -> Path:
    return uv.find_uv(Indexes({}, []), cache_dir(CHECKOUT))


def install(checkout: Packages, uv_program: Path) -> str:
    """Install as the bootstrap does; return what the installed package says."""
    checkout.sync(uv_program, Indexes.of_this_machine(), frozenset())
    program = [f"{checkout.venv}/bin/python", "-c", "import fictitious; print(fictitious.ANSWER)"]
    return subprocess.run(program, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def company() -> Iterator[Company]:
    with Company(_wheel(), None) as index:
        yield index


def test_the_index_of_pips_configuration_is_used_though_the_lock_file_names_pypi(
    checkout, company, uv_program, tmp_path
):
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = {company.url}/simple\n")
    assert install(checkout, uv_program) == "42"
    assert set(company.asked_for) == {"/simple/fictitious/", f"/files/{WHEEL}"}


def test_a_package_with_another_hash_than_the_lock_files_is_refused(checkout, uv_program, monkeypatch):
    with Company(_wheel(answer=43), None) as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
        with pytest.raises(SetupError, match=r"(?i)hash mismatch"):
            install(checkout, uv_program)


def test_packages_come_through_the_machines_proxy(checkout, company, uv_program, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://packages.example.org/simple")
    monkeypatch.setenv("HTTP_PROXY", company.url)
    monkeypatch.setenv("http_proxy", company.url)
    assert install(checkout, uv_program) == "42"
    assert company.asked_for[0] == "http://packages.example.org/simple/fictitious/"


def test_our_own_servers_are_asked_past_the_proxy(company, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, NOBODY_THERE)
    assert loopback.answers(f"{company.url}/readyz")


@pytest.fixture
def company_with_tls(tmp_path) -> Iterator[tuple[Company, Path]]:
    """An index with a certificate that only the company's own file vouches for; also return that file."""
    file, trusted = write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with Company(_wheel(), context) as index:
        yield index, trusted


def test_a_certificate_that_is_not_trusted_makes_the_bootstrap_name_ssl_cert_file(
    checkout, company_with_tls, uv_program, monkeypatch
):
    monkeypatch.setenv("PIP_INDEX_URL", f"{company_with_tls[0].url}/simple")
    with pytest.raises(SetupError) as raised:
        install(checkout, uv_program)
    assert "export SSL_CERT_FILE=/path/to/ca.pem" in raised.value.advice
    with pytest.raises(SetupError) as raised:
        uv._download(Indexes.of_this_machine(), WHEEL, "0" * 64)
    assert "export SSL_CERT_FILE=/path/to/ca.pem" in raised.value.advice


def test_with_the_companys_certificates_packages_come_from_its_index(
    checkout, company_with_tls, uv_program, monkeypatch
):
    index, certificates = company_with_tls
    monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates))
    assert install(checkout, uv_program) == "42"
    wheel = uv._download(Indexes.of_this_machine(), WHEEL, hashlib.sha256(_wheel()).hexdigest())
    assert wheel == _wheel()
