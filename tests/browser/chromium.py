"""Drives headless Chromium over its DevTools protocol: open a page, wait for what it shows, click, take a picture.

with Chromium() as browser:
    page = browser.open("http://127.0.0.1:3000")
    page.wait_for_text("Overview")
    page.click("Assets")
    page.screenshot(Path("assets.png"))
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest
from websockets.sync.client import connect

from benchmarks.live import wait_for

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
ANSWER_SECONDS = 60.0
STILL_SECONDS = 6.0  # that a picture is waited for at most

# The smallest visible element with a text that may be clicked, scrolled into view: the middle of it, or null.
FIND = """
(text, selector, exact) => {
  const shown = [...document.querySelectorAll(selector)].filter(element => {
    const own = (element.innerText ?? element.textContent ?? "").trim();
    return (exact ? own === text : own.includes(text)) && element.getClientRects().length > 0 && !element.disabled;
  });
  const area = element => { const box = element.getBoundingClientRect(); return box.width * box.height; };
  const found = shown.sort((a, b) => area(a) - area(b))[0];
  if (!found) return null;
  found.scrollIntoView({block: "center", inline: "center"});
  const box = found.getBoundingClientRect();
  return {x: box.x + box.width / 2, y: box.y + box.height / 2};
}
"""


# The middle of the last icon with a label, or null.
ICON = """
label => {
  const found = [...document.querySelectorAll("[aria-label]")].filter(icon => icon.ariaLabel === label).at(-1);
  if (!found) return null;
  const box = found.getBoundingClientRect();
  return {x: box.x + box.width / 2, y: box.y + box.height / 2};
}
"""


def chromium_program() -> str:
    """The path of the browser, found as `scripts/setup.sh` does; the test fails where there is none."""
    names = (os.environ["CHROMIUM"],) if "CHROMIUM" in os.environ else NAMES
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail("Chromium is missing: `scripts/setup.sh tests` installs it (or: apt-get install chromium)")
    return found


class Page:
    """A tab.

    Args:
        address: Of its DevTools.
    """

    def __init__(self, address: str) -> None:
        self._socket = connect(address, max_size=None, open_timeout=ANSWER_SECONDS)
        self._number = 0

    def tell(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command of the protocol and returns its answer.

        Raises:
            RuntimeError: the browser refuses it.
        """
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while (answer := json.loads(self._socket.recv(timeout=ANSWER_SECONDS))).get("id") != self._number:
            pass  # an event, or the answer to what was interrupted
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return dict(answer["result"])

    def go(self, url: str) -> None:
        """Opens an address in this tab."""
        self.tell("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        """The value of a piece of JavaScript.

        Raises:
            RuntimeError: it throws.
        """
        answer = self.tell("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", "an exception"))
        return answer["result"].get("value")

    def text(self) -> str:
        """All that can be read on the page."""
        return str(self.evaluate("document.body ? document.body.innerText : ''"))

    def wait_for_text(self, *texts: str, seconds: float = 60.0) -> str:
        """Waits until the page shows every one of the texts; returns all that it shows.

        Raises:
            AssertionError: it does not; says which are missing, and what it shows.
        """
        end = time.monotonic() + seconds
        while missing := [text for text in texts if text not in (shown := self.text())]:
            assert time.monotonic() < end, f"the page does not show {missing} within {seconds:g} s, but:\n{shown}"
            time.sleep(0.25)
        return self.text()

    def wait_for(self, selector: str, seconds: float = 60.0) -> None:
        """Waits until an element matches a CSS selector."""
        script = f"document.querySelector({json.dumps(selector)}) !== null"
        wait_for(f"an element {selector}", lambda: self.evaluate(script), seconds)

    def click(self, text: str, selector: str = "*", *, exact: bool = True, seconds: float = 60.0) -> None:
        """Clicks, with the mouse, the smallest element that matches a CSS selector and shows a text.

        Raises:
            AssertionError: there is none; says what the page shows.
        """
        script = f"({FIND})({json.dumps(text)}, {json.dumps(selector)}, {json.dumps(exact)})"
        end = time.monotonic() + seconds
        before, place = None, self.evaluate(script)
        while place is None or place != before:  # a dialog that opens is still moving
            assert time.monotonic() < end, f"nothing to click that shows {text!r}, but:\n{self.text()}"
            time.sleep(0.25)
            before, place = place, self.evaluate(script)
        self.click_at(place["x"], place["y"])

    def click_icon(self, label: str) -> None:
        """Clicks the last icon with a label, where there is one: an open panel has one that closes it."""
        place = self.evaluate(f"({ICON})({json.dumps(label)})")
        if place:
            self.click_at(place["x"], place["y"])

    def click_at(self, x: float, y: float) -> None:
        """Clicks a place, in pixels from the upper left."""
        mouse = {"x": x, "y": y, "button": "left", "clickCount": 1}
        self.tell("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.tell("Input.dispatchMouseEvent", type="mousePressed", **mouse)
        self.tell("Input.dispatchMouseEvent", type="mouseReleased", **mouse)

    def screenshot(self, path: Path) -> None:
        """Writes what the tab shows as a PNG file, as soon as it keeps still; clocks never do."""
        end, before, shown = time.monotonic() + STILL_SECONDS, None, self._shown()
        while shown != before and time.monotonic() < end:
            time.sleep(1.0)
            before, shown = shown, self._shown()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(shown)

    def _shown(self) -> bytes:
        return base64.b64decode(self.tell("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """Ends the connection; the tab goes with the browser."""
        self._socket.close()


class Chromium:
    """A browser with an empty profile of its own.

    Args:
        width: Of the window, in pixels.
        height: Of the window, in pixels.
    """

    def __init__(self, width: int = 1800, height: int = 1400) -> None:
        self._profile = Path(tempfile.mkdtemp(prefix="world4rl-chromium-"))
        self._pages: list[Page] = []
        self._process = subprocess.Popen(
            [
                *(chromium_program(), *FLAGS, f"--window-size={width},{height}"),
                *(f"--user-data-dir={self._profile}", "about:blank"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._port = wait_for("Chromium", self._debugging_port, 60)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for page in self._pages:
            page.close()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=30)
        shutil.rmtree(self._profile, ignore_errors=True)

    def open(self, url: str) -> Page:
        """A new tab at an address."""
        request = urllib.request.Request(f"http://127.0.0.1:{self._port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:
            page = Page(json.load(response)["webSocketDebuggerUrl"])
        self._pages.append(page)
        page.go(url)
        return page

    def _debugging_port(self) -> int:
        file = self._profile / "DevToolsActivePort"
        if self._process.poll() is not None:
            raise RuntimeError(f"Chromium ended with status {self._process.returncode}")
        lines = file.read_text().split() if file.exists() else []
        return int(lines[0]) if len(lines) == 2 else 0
