"""`/docs` and `/problems/...`: plain HTML, made here, so that it opens where no CDN can be reached."""

import re
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

from clinic_shared.errors import DomainError
from clinic_shared.problem_pages import ProblemPage, problem_pages
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from clinic_gateway.errors import UnknownPathError
from clinic_gateway.event_pages import events_body
from clinic_gateway.openapi import ApiDescription
from clinic_gateway.reference import References, example, fields
from clinic_gateway.upstream import Upstreams

WALKTHROUGH = Path(__file__).with_name("walkthrough.md")
ASK_SECONDS = 2
STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
pre{background:#8881;padding:.75rem;overflow:auto;border-radius:.4rem}
code{font:.9em ui-monospace,monospace}
summary{cursor:pointer;padding:.3rem 0}
summary b{display:inline-block;min-width:4.5rem;font-family:ui-monospace,monospace}
details{overflow-x:auto}
table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;vertical-align:top}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem}
"""
SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


class Pages:
    def __init__(
        self, description: ApiDescription, upstreams: Upstreams, *, contracts_dir: Path, url: str
    ) -> None:
        self._contracts_dir = contracts_dir
        self._description = description
        self._upstreams = upstreams
        self._url = url

    def routes(self) -> list[Route]:
        return [
            Route("/", self.root),
            Route("/docs", self.docs),
            Route("/docs/events", self.events),
            Route("/asyncapi.yaml", self.asyncapi),
            Route("/openapi.json", self.openapi),
            Route("/problems", self.problems),
            Route("/problems/{slug}", self.problem),
        ]

    async def root(self, request: Request) -> Response:  # noqa: ARG002
        return RedirectResponse("/docs")

    async def openapi(self, request: Request) -> Response:  # noqa: ARG002
        return JSONResponse(await self._description.document())

    async def docs(self, request: Request) -> Response:
        document = await self._description.document()
        address = self._url or str(request.base_url).rstrip("/")
        parts = ["<h1>Polyclinic API</h1>", navigation(document)]
        parts.append(markdown(WALKTHROUGH.read_text(encoding="utf-8").replace("$CLINIC_URL_SHOWN", address)))
        parts += [section(tag["name"], document) for tag in document["tags"]]
        parts.append(section("operations", document))
        return page("Polyclinic API", "".join(parts))

    async def events(self, request: Request) -> Response:  # noqa: ARG002
        return page("Polyclinic events", events_body(self._contracts_dir))

    async def asyncapi(self, request: Request) -> Response:  # noqa: ARG002
        text = (self._contracts_dir / "asyncapi.yaml").read_bytes()
        return Response(text, media_type="application/yaml")  # RFC 9512

    async def problems(self, request: Request) -> Response:  # noqa: ARG002
        rows = (
            f"<tr><td><a href='/problems/{slug}'><code>{slug}</code></a><td>{known.status}<td>{escape(known.title)}"
            for slug, known in problem_pages().items()
        )
        return page("Problems", f"<h1>Problems</h1><table>{''.join(rows)}</table>")

    async def problem(self, request: Request) -> Response:
        """Explain a problem type; those of a service's own rules are asked of the services."""
        slug = request.path_params["slug"]
        known = problem_pages().get(slug)
        if known is not None:
            return page(known.title, problem_text(slug, known))
        for service in self._upstreams.urls:
            found = await self._ask(service, slug)
            if found is not None:
                return found
        raise UnknownPathError

    async def _ask(self, service: str, slug: str) -> Response | None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,79}", slug):
            return None
        try:
            async with self._upstreams.request(
                service, "GET", f"/problems/{slug}", timeout_seconds=ASK_SECONDS
            ) as answer:
                if not answer.ok:
                    return None
                kept = Headers({"content-type": answer.headers.get("content-type", "text/plain")})
                return Response(await answer.read(), headers=kept)
        except DomainError:
            return None


def page(title: str, body: str) -> Response:
    text = (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>"
        f"<meta name=viewport content='width=device-width'><style>{STYLE}</style><main>{body}</main></html>"
    )
    return HTMLResponse(text, headers={"content-security-policy": SECURITY_POLICY})


def problem_text(slug: str, known: ProblemPage) -> str:
    return (
        f"<h1>{escape(known.title)}</h1><p><code>{slug}</code>, HTTP status {known.status}"
        f"<h2>Cause</h2><p>{inline(known.cause or known.title)}"
        f"<h2>What to do</h2><p>{inline(known.fix or 'The detail of the answer says more.')}"
        "<p><a href='/problems'>All problems</a>"
    )


def navigation(document: dict[str, Any]) -> str:
    names = [tag["name"] for tag in document["tags"]] + ["operations"]
    links = "".join(f"<a href='#{escape(name)}'>{escape(name)}</a>" for name in names)
    return f"<nav>{links}<a href='/docs/events'>events</a><a href='/problems'>problems</a><a href='/openapi.json'>openapi.json</a></nav>"


def section(tag: str, document: dict[str, Any]) -> str:
    operations = list(_operations(tag, document))
    if not operations:
        return ""
    return f"<h2 id='{escape(tag)}'>{escape(tag)}</h2>{''.join(operations)}"


def _operations(tag: str, document: dict[str, Any]) -> Iterator[str]:
    references = References(document)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if tag in operation["tags"]:
                yield _operation(method.upper(), path, operation, references)


def _operation(method: str, path: str, operation: dict[str, Any], references: References) -> str:
    parameters = "".join(_parameter(one) for one in operation.get("parameters", []))
    described = inline(str(operation.get("description", "")))
    body = _content("Body", operation.get("requestBody", {}), references)
    answers = "".join(
        _content(f"Answer {code}", answer, references)
        for code, answer in operation.get("responses", {}).items()
    )
    permission = operation.get("x-permission")
    needed = f"<p>Needs <code>{escape(permission)}</code>" if permission else ""
    going = " <em>on its way out</em>" if operation.get("deprecated") else ""
    return (
        f"<details><summary><b>{method}</b> <code>{escape(path)}</code> {escape(operation.get('summary', ''))}{going}"
        f"</summary><p>{described}{needed}<table>{parameters}</table>{body}{answers}</details>"
    )


def _parameter(parameter: dict[str, Any]) -> str:
    schema = parameter.get("schema", {})
    kind = schema.get("format") or schema.get("type") or ""
    need = "required" if parameter.get("required") else ""
    return (
        f"<tr><td><code>{escape(str(parameter.get('name')))}</code><td>{escape(str(parameter.get('in')))}"
        f"<td>{escape(str(kind))}<td>{need}<td>{inline(str(parameter.get('description', '')))}"
    )


def _content(title: str, body: dict[str, Any], references: References) -> str:
    """Describe what a request or an answer carries, with fields and an example."""
    described = inline(str(body.get("description", "")))
    parts = [
        f"<p>{title}: <code>{escape(media_type)}</code> {described}"
        f"{fields(content.get('schema', {}), references)}{_example(content, references)}"
        for media_type, content in body.get("content", {}).items()
        # All problems look alike; /problems explains them.
        if media_type != "application/problem+json"
    ]
    return "".join(parts)


def _example(content: dict[str, Any], references: References) -> str:
    schema = references.resolve(content.get("schema", {}))
    told = content.get("example", next(iter(schema.get("examples", ())), None))
    if told is None:
        return ""
    return f"<pre><code>{escape(told)}</code></pre>" if isinstance(told, str) else example(told)


def markdown(text: str) -> str:
    """Render the little Markdown that our own texts use: headings, paragraphs, fenced blocks."""
    html = []
    for number, part in enumerate(re.split(r"^```.*\n", text, flags=re.MULTILINE)):
        if number % 2:
            html.append(f"<pre><code>{escape(part)}</code></pre>")
        else:
            html += [_paragraph(block) for block in part.split("\n\n") if block.strip()]
    return "".join(html)


def _paragraph(block: str) -> str:
    heading = re.match(r"(#+) (.*)", block.strip())
    if heading:
        level = len(heading[1]) + 1
        return f"<h{level}>{inline(heading[2])}</h{level}>"
    return f"<p>{inline(block)}</p>"


def inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
