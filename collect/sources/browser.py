"""A browser as the sources use it: open a page, read it, scroll, click. All it connects to goes through the address guard.

Whatever goes wrong in it becomes a typed refusal; a browser that died is started anew at the next page.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import urllib3
from selenium import webdriver
from selenium.common.exceptions import JavascriptException, TimeoutException, WebDriverException
from selenium.webdriver.common.by import By

from collect.net.address import AddressGuard
from collect.sources.chromium import Chromium, launch
from collect.sources.guarded_proxy import GuardedProxy
from collect.sources.http import Declined
from collect.sources.source import Outcome, SourceSettings

_PAUSE_AFTER_TROUBLE_S = 10.0


class Browser:
    """One Chromium, started at the first page and closed by `close`.

    `trusted_url` is a base URL of the user's own choice, let through wherever it leads.

    Raises:
        UsageError: an entry of `settings.allow_addresses` is no address.
        MissingServiceError: at the first page, where there is no browser or it does not start.
    """

    def __init__(self, settings: SourceSettings, trusted_url: str = "") -> None:
        self._settings = settings
        self._guard = AddressGuard(settings.allow_addresses)
        self._trusted = _place(trusted_url)
        self._proxy: GuardedProxy | None = None
        self._chromium: Chromium | None = None
        self._closed = False
        #: `close` may come from another thread while a page is being read, or while Chromium starts.
        self._changing = threading.Lock()
        #: The page that was opened and is still there to be read; "" = none.
        self.opened = ""

    def open(self, url: str) -> None:
        """Go to a page and wait until its document is there.

        Raises:
            Declined: BLOCKED, where it does not answer in time or at all, or where the address guard says no.
        """
        self.opened = ""
        driver = self._started()
        known = set(self._refused)
        try:
            with self._working(url):
                _navigate(driver, url)
        except Declined:
            self._explain(set(self._refused) - known)
            raise
        self._explain({"{}:{}".format(*_place(self.url))})
        self.opened = url

    @property
    def url(self) -> str:
        """Where the browser is, after redirects."""
        with self._working(self.opened):
            return str(self._driver().current_url)

    def html(self) -> str:
        """The document as it stands now."""
        with self._working(self.opened):
            return str(self._driver().page_source)

    def script(self, source: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return its value; None where the script fails there."""
        with self._working(self.opened):
            try:
                return self._driver().execute_script(source, *arguments)
            except (JavascriptException, TimeoutException):
                return None

    def click(self, css: str) -> bool:
        """Click the first visible element that matches; False where there is none or it is covered."""
        with contextlib.suppress(WebDriverException):
            for element in self._driver().find_elements(By.CSS_SELECTOR, css):
                if element.is_displayed():
                    element.click()
                    return True
        return False

    def visible(self, css: str) -> bool:
        """Whether an element that matches can be seen."""
        return bool(self.script("return [...document.querySelectorAll(arguments[0])].some(e => e.getClientRects().length > 0)", css))

    def scroll_down(self) -> None:
        """To the end of the page as it stands."""
        self.script("window.scrollTo(0, document.documentElement.scrollHeight)")

    def wait(self, ready: Callable[[], bool], seconds: float) -> bool:
        """Look every 100 ms until `ready`; False when the time is up."""
        deadline = time.monotonic() + seconds
        while not ready():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True

    def close(self) -> None:
        """End the browser for good; may be called twice, and from another thread."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        with self._changing:
            self.opened = ""
            chromium, self._chromium = self._chromium, None
            proxy, self._proxy = self._proxy, None
        if chromium is not None:
            chromium.end()
        if proxy is not None:
            proxy.close()

    def _started(self) -> webdriver.Chrome:
        """The driver of the browser, which is started where it does not run."""
        with self._changing:
            if self._closed:
                raise Declined(Outcome.BLOCKED, "this source has been closed")
            if self._chromium is None:
                proxy = GuardedProxy(self._guard, [self._trusted] if self._trusted[0] else [])
                try:
                    self._chromium, self._proxy = launch(self._settings, proxy.url), proxy
                except BaseException:
                    proxy.close()
                    raise
            return self._chromium.driver

    def _driver(self) -> webdriver.Chrome:
        """The driver of the browser that shows the open page."""
        chromium = self._chromium
        if chromium is None:
            raise Declined(Outcome.BLOCKED, "the browser has ended")
        return chromium.driver

    @contextlib.contextmanager
    def _working(self, url: str) -> Iterator[None]:
        """Translate the browser's troubles; after one that it does not survive it is closed."""
        host = _place(url)[0] or "the page"
        try:
            yield
        except TimeoutException:
            raise Declined(Outcome.BLOCKED, f"{host} did not answer the browser in time", _PAUSE_AFTER_TROUBLE_S) from None
        except WebDriverException as error:
            words = str(error.msg).splitlines()[0]
            if "net::ERR" not in words:
                self._end()
            raise Declined(Outcome.BLOCKED, f"the browser could not read {host}: {words}", _PAUSE_AFTER_TROUBLE_S) from None
        except (urllib3.exceptions.HTTPError, OSError):
            self._end()
            raise Declined(Outcome.BLOCKED, f"the browser ended while it read {host}", _PAUSE_AFTER_TROUBLE_S) from None

    @property
    def _refused(self) -> dict[str, str]:
        return self._proxy.refused if self._proxy else {}

    def _explain(self, places: set[str]) -> None:
        """Raise where the guard kept the browser from one of these places."""
        for place in sorted(places & set(self._refused)):
            reason = self._refused[place]
            raise Declined(Outcome.BLOCKED, f"the browser was kept from {place}: {reason}; --allow-address lets an address through")


def _navigate(driver: webdriver.Chrome, url: str) -> None:
    try:
        driver.get(url)
    except TimeoutException:
        # A page that never ends loading is still worth reading, unless nothing of it came.
        driver.execute_script("window.stop()")
        if driver.current_url in {"data:,", "about:blank"}:
            raise


def _place(url: str) -> tuple[str, int]:
    """Host and port of a URL; the host is "" where it has none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0
