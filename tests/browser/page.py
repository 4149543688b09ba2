"""One page in a browser's window: what a person sees of it and does to it.

Everything that a page does by itself is waited for, never slept for.
"""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium.common.exceptions import JavascriptException, SessionNotCreatedException
from selenium.webdriver import Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service as Driver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

WAIT_S = 20.0
UNTIL = """
const [ms, ...a] = arguments, end = performance.now() + ms;
return new Promise((done, fail) => {
  const look = () => Promise.resolve(%s).then(
    found => found || performance.now() > end ? done(found) : setTimeout(later, 20), fail);
  const later = () => { try { look() } catch (error) { fail(error) } };
  later();
});
"""
"""Looks in the page itself, which asks less of the machine than a question after the other."""
HURRY = """
for (const name of ['setTimeout', 'setInterval']) {
  const timer = window[name];
  window[name] = (run, ms, ...given) => timer(run, ms / %d, ...given);
}
"""
VISIBLE = "e => e.offsetParent !== null || getComputedStyle(e).position == 'fixed'"


@contextmanager
def open_browser(program: str, driver: str, profile: Path) -> Iterator[Chrome]:
    """A headless Chromium with a profile of its own and no connection but to this machine.

    It is gone afterwards, also where this process is killed: another one holds a pipe to it.
    """
    options = ChromeOptions()
    options.binary_location = program
    for word in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--in-process-gpu",
        "--renderer-process-limit=1",
        "--no-first-run",
        "--no-proxy-server",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-component-update",
        "--force-prefers-reduced-motion",
        "--lang=en-US",
        f"--user-data-dir={profile}",
    ):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for attempt in range(3):  # on a busy machine it may end at its start
        service = Driver(driver)
        try:
            browser = Chrome(options=options, service=service)
            break
        except SessionNotCreatedException:
            service.stop()
            if attempt == 2:
                raise
    pids = [str(service.process.pid), str(browser.capabilities["goog:processID"])]
    watch = ["sh", "-c", 'cat >/dev/null; kill -9 "$@" 2>/dev/null', "sh", *pids]
    watching = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    try:
        yield browser
    finally:
        browser.quit()
        watching.kill()
        watching.communicate()


class Page:
    """A page in the browser's one window. LuCI stores things by session, and each is a new one."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser

    def open(self, url: str, *, width: int = 1000, height: int = 900, speed: int = 1) -> None:
        """Load an address in a window of this size, as a phone of this width would. Its timers run
        so many times as fast.
        """
        size = {"width": width, "height": height, "screenWidth": width, "screenHeight": height}
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": 1, "mobile": False}
        )
        add, remove = (
            "Page.addScriptToEvaluateOnNewDocument",
            "Page.removeScriptToEvaluateOnNewDocument",
        )
        hurry = self.browser.execute_cdp_cmd(add, {"source": HURRY % speed})
        self.browser.get(url)  # which may return a little too early
        self.browser.execute_cdp_cmd(remove, hurry)
        self.until("location.href != 'about:blank' && document.readyState == 'complete'")

    def close(self) -> None:
        """Leave it; nothing of it goes on."""
        self.browser.get("about:blank")

    def asks_now(self) -> None:
        """Have it ask for news at once, as one that is looked at again does."""
        self.js("document.dispatchEvent(new Event('visibilitychange'))")

    def js(self, script: str, *arguments: Any) -> Any:
        """The value of an expression; `a` are the arguments. A promise is waited for."""
        return self.browser.execute_script(f"const a = arguments; return ({script});", *arguments)

    def until(self, script: str, *arguments: Any, timeout_s: float = WAIT_S) -> Any:
        """Wait until an expression is true and return it. Raises AssertionError with the page."""
        ends_s = time.monotonic() + timeout_s
        while (left_s := ends_s - time.monotonic()) > 0:
            try:
                ms = 1000 * min(left_s, WAIT_S)  # the driver gives a script 30 s
                found = self.browser.execute_script(UNTIL % script, ms, *arguments)
            except JavascriptException as error:
                if "document unloaded" not in str(error):
                    raise
            else:
                if found:
                    return found
        seen = self.js("document.body.innerText")
        raise AssertionError(f"not in {timeout_s:g} s: {script} {arguments}\n{seen}\n{self.log()}")

    def sees(self, text: str, place: str = "body", *, timeout_s: float = WAIT_S) -> None:
        """Wait until this text can be read at a place."""
        self.until(
            "[...document.querySelectorAll(a[0])].some(e => e.innerText.includes(a[1]))",
            place,
            text,
            timeout_s=timeout_s,
        )

    def text(self, place: str) -> str:
        """What can be read there; '' where there is nothing."""
        return str(self.js("(document.querySelector(a[0]) || {}).innerText || ''", place))

    def count(self, place: str) -> int:
        """How many of these elements are visible."""
        return int(self.js(f"[...document.querySelectorAll(a[0])].filter({VISIBLE}).length", place))

    def find(self, place: str) -> WebElement:
        """The first element there, which is waited for."""
        self.until("document.querySelector(a[0])", place)
        return self.browser.find_element(By.CSS_SELECTOR, place)

    def click(self, place: str) -> None:
        """Click it, once it can be."""
        self.until("(e => e && !e.disabled)(document.querySelector(a[0]))", place)
        self.find(place).click()

    def press(self, *keys: str) -> None:
        """Press keys one after the other, where the focus is."""
        typed = (getattr(Keys, key, key) for key in keys)
        self.browser.switch_to.active_element.send_keys(*typed)

    def focused(self) -> str:
        """The text of what has the focus."""
        return str(self.js("document.activeElement.innerText || document.activeElement.name || ''"))

    def log(self) -> list[str]:
        """What the browser complained about since the last time."""
        entries = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [e["message"] for e in entries if e["level"] == "SEVERE"]

    def pictures(self, folder: Path, name: str, height: int = 1100) -> None:
        """Write the page's first lines as NAME-light.webp and NAME-dark.webp."""
        width = self.js("innerWidth")
        height = self.js("Math.min(a[0], Math.max(document.body.scrollHeight, 300))", height)
        size = {"width": width, "height": height, "screenWidth": width, "screenHeight": height}
        self.browser.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride", {**size, "deviceScaleFactor": 1, "mobile": False}
        )
        folder.mkdir(parents=True, exist_ok=True)
        for theme in ("light", "dark"):
            self.js(
                "(document.documentElement.dataset.darkmode = a[0])", str(theme == "dark").lower()
            )
            taken = self.browser.execute_cdp_cmd(
                "Page.captureScreenshot", {"format": "webp", "quality": 35}
            )
            (folder / f"{name}-{theme}.webp").write_bytes(base64.b64decode(taken["data"]))
        light, dark = (
            (folder / f"{name}-{theme}.webp").read_bytes() for theme in ("light", "dark")
        )
        assert light != dark and min(len(light), len(dark)) > 5000, f"{name} is empty"
