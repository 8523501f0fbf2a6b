"""Which package index this machine uses, as pip and uv are told: environment first, then pip's files; and files from it.

Standard library only: bootstrap.py uses this before any package is there.
"""

import base64
import configparser
import html
import json
import os
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

PYPI = "https://pypi.org/simple"
_TIMEOUT_SECONDS = 60.0
CERTIFICATE_ADVICE = (
    "The certificate of the package index isn't trusted here. Behind a proxy that opens TLS, name the file with\n"
    "your company's certificates: export SSL_CERT_FILE=/path/to/ca.pem\n"
    "On a minimal system the usual ones may be missing: apt-get install ca-certificates"
)


class Indexes:
    """Where packages come from: index addresses, folders or pages of links, and whose certificates are trusted."""

    def __init__(self, environ: Mapping[str, str], files: Sequence[Path]) -> None:
        pip = _pip_configuration(files)
        self.no_index = _is_true(environ.get("PIP_NO_INDEX") or pip.get("no-index", ""))
        main = (
            environ.get("UV_DEFAULT_INDEX")
            or environ.get("UV_INDEX_URL")
            or environ.get("PIP_INDEX_URL")
            or pip.get("index-url")
        )
        self.main = (_words(main) or [PYPI])[0]
        self.extra = _words(
            environ.get("UV_INDEX"),
            environ.get("UV_EXTRA_INDEX_URL"),
            environ.get("PIP_EXTRA_INDEX_URL"),
            pip.get("extra-index-url"),
        )
        self.find_links = _words(
            environ.get("UV_FIND_LINKS"), environ.get("PIP_FIND_LINKS"), pip.get("find-links")
        )
        self.certificates = (
            environ.get("SSL_CERT_FILE")
            or environ.get("PIP_CERT")
            or environ.get("REQUESTS_CA_BUNDLE")
            or pip.get("cert")
        )

    @classmethod
    def of_this_machine(cls) -> "Indexes":
        return cls(os.environ, pip_files(os.environ))

    @property
    def urls(self) -> list[str]:
        return self.extra if self.no_index else [self.main, *self.extra]

    @property
    def is_pypi(self) -> bool:
        """Tell whether the addresses recorded in uv.lock, which are PyPI's, can be used as they are."""
        return not self.no_index and self.main.rstrip("/") == PYPI

    def uv_options(self) -> list[str]:
        main = ["--no-index"] if self.no_index else ["--default-index", self.main]
        extra = [] if self.no_index else [part for url in self.extra for part in ("--index", url)]
        links = [part for place in self.find_links for part in ("--find-links", place)]
        return [*main, *extra, *links]


def pip_files(environ: Mapping[str, str]) -> list[Path]:
    """Return pip's configuration files, the strongest first."""
    chosen = environ.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return []
    home = environ.get("HOME")
    user = environ.get("XDG_CONFIG_HOME") or (f"{home}/.config" if home else None)
    shared = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    files = [
        chosen,
        f"{sys.prefix}/pip.conf",
        f"{user}/pip/pip.conf" if user else None,
        f"{home}/.pip/pip.conf" if home else None,
        "/etc/pip.conf",
        *(f"{folder}/pip/pip.conf" for folder in shared if folder),
    ]
    return [Path(file) for file in files if file]


def _pip_configuration(files: Sequence[Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for file in reversed(files):
        parser = configparser.RawConfigParser()
        try:
            parser.read(file)
        except (configparser.Error, UnicodeDecodeError, OSError):
            print(f"bootstrap: {file} can't be read and is left out", file=sys.stderr)
            continue
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                found.update(parser.items(section))
    return found


def _is_true(text: str) -> bool:
    return text.strip().lower() in {"1", "true", "yes", "on"}


def _words(*texts: str | None) -> list[str]:
    """Split lists of places; uv allows each to be written as name=url."""
    words = [word for text in texts for word in (text or "").split()]
    return list(dict.fromkeys(word.split("=", 1)[1] if _is_named(word) else word for word in words))


def _is_named(word: str) -> bool:
    name, equals, rest = word.partition("=")
    return bool(equals and "://" in rest and "://" not in name)


def address_of(place: str, filename: str) -> str | None:
    """Find the file's address on an index page, in a folder or on a page of links."""
    folder = Path(place.removeprefix("file://"))
    if "://" not in place or place.startswith("file://"):
        if (folder / filename).is_file():
            return (folder / filename).as_uri()
        if not (folder / "index.html").is_file():
            return None
        place = (folder / "index.html").as_uri()
    page = fetch(place, accept="application/vnd.pypi.simple.v1+json, text/html;q=0.5")
    return _link(page, place, filename)


def _link(page: bytes, base: str, filename: str) -> str | None:
    text = page.decode("utf-8", "replace")
    if text.lstrip().startswith("{"):
        links = [str(file["url"]) for file in json.loads(text)["files"]]
    else:
        links = [html.unescape(link) for link in re.findall(r"""<a[^>]*?href=["']([^"']+)["']""", text)]
    for link in links:
        if unquote(link.partition("#")[0]).rpartition("/")[2] == filename:
            return urljoin(base, link.partition("#")[0])
    return None


def fetch(url: str, accept: str = "*/*", *, timeout_seconds: float = _TIMEOUT_SECONDS) -> bytes:
    """Get a file through the machine's proxy, if it has one. Raises OSError or ValueError."""
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    bare = parts._replace(netloc=host).geturl()
    request = urllib.request.Request(bare, headers={"Accept": accept})  # noqa: S310 - file: is a lawful index
    if at:
        token = base64.b64encode(unquote(credentials).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {token}")
    # `urlopen` would keep the certificates of its first call, in Python 3.13 and later.
    opener = urllib.request.build_opener()
    with opener.open(request, timeout=timeout_seconds) as answer:
        return bytes(answer.read())


def is_about_certificates(error: BaseException) -> bool:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return isinstance(reason, ssl.SSLCertVerificationError)


def redacted(text: str) -> str:
    """Return the text without the user names and passwords that addresses of package indexes often carry."""
    return re.sub(r"//[^/@\s]+@", "//", text)
