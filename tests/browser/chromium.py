"""A client of the Chrome DevTools Protocol, as small as our tests need it: messages over a pipe, pages, keys.

Over a pipe nobody else can join, no port has to be found, and Chromium ends when its end closes, whatever becomes
of the test.
"""

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clinic_local.chromium import Chromium
from clinic_shared.testing import PATIENCE_SECONDS, eventually

_MOST_BYTES = 64 * 1024 * 1024
_END_SECONDS = 20
# Hosts of our own that aren't this machine to a browser: their pages are of another site, and no secure context.
FOREIGN = "stranger.test"
_FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    # It opens our own pages alone; and root, or a kernel without user namespaces, can't have the sandbox.
    "--no-sandbox",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-proxy-server",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--disable-sync",
    "--disable-breakpad",
    "--password-store=basic",
    "--metrics-recording-only",
    f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1,MAP * ~NOTFOUND,EXCLUDE localhost,EXCLUDE 127.0.0.1",
)


class BrowserError(Exception):
    """Chromium ended, or refused a command."""


class ScriptError(BrowserError):
    """A script of a test was rejected; `name` is the error's, such as NotAllowedError."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.name = text.partition(":")[0]


class Browser:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, Page] = {}
        self._reading = asyncio.create_task(self._read())

    async def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Give a command and return its result. Raises BrowserError."""
        if self._reading.done():
            raise BrowserError("Chromium has ended")
        number = next(self._ids)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\0")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                told = await answer
        finally:
            self._waiting.pop(number, None)
        if "error" in told:
            raise BrowserError(f"{method}: {told['error']['message']}")
        return dict(told["result"])

    @asynccontextmanager
    async def page(self) -> AsyncIterator["Page"]:
        """Open a page in a browser of its own: no cookie or key is shared with another one's."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        made = await self.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = await self.call("Target.attachToTarget", targetId=made["targetId"], flatten=True)
        page = self._pages[attached["sessionId"]] = Page(self, attached["sessionId"])
        try:
            for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
                await page.call(f"{domain}.enable")
            # Each page behaves as if its window were the one in front.
            await page.call("Emulation.setFocusEmulationEnabled", enabled=True)
            yield page
        finally:
            del self._pages[attached["sessionId"]]
            with contextlib.suppress(BrowserError):
                await self.call("Target.disposeBrowserContext", browserContextId=context)

    async def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            while True:
                self._take(json.loads((await self._process.stdout.readuntil(b"\0"))[:-1]))
        except asyncio.IncompleteReadError:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(BrowserError("Chromium has ended"))

    def _take(self, message: dict[str, Any]) -> None:
        waiting = self._waiting.get(message.get("id", 0))
        if waiting is not None and not waiting.done():
            waiting.set_result(message)
        page = self._pages.get(message.get("sessionId", ""))
        if page is not None and "method" in message:
            page.told(message["method"], message["params"])

    async def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(_END_SECONDS):
                await self._process.wait()
        except TimeoutError:
            pass
        # Its children are of its process group, whose number is its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        await self._reading


@dataclass
class Page:
    browser: Browser
    session: str
    violations: list[str] = field(default_factory=list)
    """What its content security policy kept from happening."""
    dialogs: list[str] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    """What the network answered it."""
    asked: dict[str, str] = field(default_factory=dict)
    """The addresses of its requests, by their ids."""
    blocked: list[str] = field(default_factory=list)
    """The addresses whose answers it was not allowed to show."""

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self.browser.call(method, self.session, **params)

    def told(self, event: str, params: dict[str, Any]) -> None:
        if event == "Audits.issueAdded":
            issue = params["issue"]
            if issue["code"] == "ContentSecurityPolicyIssue":
                self.violations.append(json.dumps(issue["details"]))
        elif event == "Network.responseReceived":
            self.answers.append(params["response"])
        elif event == "Network.requestWillBeSent":
            self.asked[params["requestId"]] = params["request"]["url"]
        elif event == "Network.loadingFailed" and params["errorText"] == "net::ERR_BLOCKED_BY_RESPONSE":
            self.blocked.append(self.asked[params["requestId"]])
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(params["message"])

    async def open(self, url: str) -> None:
        """Go to an address as somebody does who types it in, and wait for the page."""
        gone = await self.call("Page.navigate", url=url)
        if "errorText" in gone:
            raise BrowserError(f"{url}: {gone['errorText']}")
        await self.until("document.readyState === 'complete'")

    async def run(self, script: str) -> Any:
        """Return what an expression comes to, promises awaited, as if its user had just clicked."""
        done = await self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True
        )
        if "exceptionDetails" in done:
            thrown = done["exceptionDetails"]
            raise ScriptError(str(thrown.get("exception", {}).get("description", thrown["text"])))
        return done["result"].get("value")

    async def until(self, condition: str) -> None:
        """Wait until an expression is true; in a page that is being replaced none is."""

        async def check() -> bool:
            try:
                return bool(await self.run(f"Boolean({condition})"))
            except BrowserError:
                return False

        check.__name__ = condition
        await eventually(check)

    async def answered(self, url: str) -> None:
        await eventually(lambda: any(one["url"] == url for one in self.answers))

    async def was_blocked(self, url: str) -> None:
        await eventually(lambda: url in self.blocked)

    async def text(self) -> str:
        return str(await self.run("document.body.innerText"))

    async def picture(self) -> bytes:
        """Return the page as PNG."""
        taken = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])

    async def type(self, text: str) -> None:
        """Type into whatever has the focus."""
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, number: int, text: str = "") -> None:
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            await self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=number, **typed
            )

    async def press_enter(self) -> None:
        await self.press("Enter", 13, "\r")

    async def press_tab(self) -> None:
        await self.press("Tab", 9)


@asynccontextmanager
async def running(chromium: Chromium, folder: Path) -> AsyncIterator[Browser]:
    """Start Chromium with a profile of its own below `folder`. Raises BrowserError if it can't run here."""
    errors = folder / "errors.log"
    places = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "TMPDIR")}
    with errors.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            # It reads from 3 and writes to 4.
            *("-c", 'exec "$@" 3<&0 4>&1 0</dev/null 1>/dev/null', "sh"),
            *(str(chromium.program), *_FLAGS, f"--user-data-dir={folder}/profile", "about:blank"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            env={**os.environ, **places, **chromium.environment},
            limit=_MOST_BYTES,
            start_new_session=True,
        )
    browser = Browser(process)
    try:
        try:
            await browser.call("Browser.getVersion")
        except (BrowserError, TimeoutError) as error:
            raise BrowserError(f"{chromium.program}: {errors.read_text()[-2000:]}") from error
        yield browser
    finally:
        await browser.close()
