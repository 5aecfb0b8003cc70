"""A headless Chromium that reads pages and loads no image: Debian's Chromium and chromedriver, through Selenium.

Images are switched off in the renderer, in the preferences and by blocked URL patterns, since each alone has a hole
(`fetch()` of a picture, `<link rel=preload>`, CSS). Selenium Manager may not go to the network (`SE_OFFLINE`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import JavascriptException, NoSuchElementException, TimeoutException, WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from collect.errors import MissingServiceError
from collect.net.address import AddressGuard
from collect.sources.guarded_proxy import GuardedProxy
from collect.sources.http import Declined, user_agent
from collect.sources.source import Outcome, SourceSettings

#: The one command that mends a missing browser.
INSTALL = "sudo apt-get install -y chromium chromium-driver"
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_FLAGS = (
    "--headless=new",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--mute-audio",
    "--window-size=1500,950",
    "--blink-settings=imagesEnabled=false",
    # Loopback too goes through the proxy, and nothing goes round it.
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)
_IMAGE_ENDINGS = ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "avif", "bmp", "ico", "svg", "tif", "tiff", "heic", "jxl")
_MEDIA_ENDINGS = ("mp4", "webm", "m4s", "mp3", "ogg", "woff", "woff2", "ttf")
_NO_IMAGES = {
    "profile.managed_default_content_settings.images": 2,
    "profile.default_content_setting_values.notifications": 2,
    "download_restrictions": 3,
}


def find_browser() -> tuple[str, str]:
    """Paths of Chromium and chromedriver.

    Raises:
        MissingServiceError: one is not here; names the command that installs both.
    """
    chromium = next((path for name in _CHROMIUM if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    missing = " and ".join(name for name, path in (("Chromium", chromium), ("chromedriver", driver)) if path is None)
    if chromium is None or driver is None:
        raise MissingServiceError(f"{missing} not found, which this source needs; run `{INSTALL}`")
    return chromium, driver


class Browser:
    """One Chromium, started at the first page and closed by `close`. All it connects to goes through the address guard.

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
        self._driver: webdriver.Chrome | None = None
        self._profile: tempfile.TemporaryDirectory[str] | None = None

    def open(self, url: str) -> None:
        """Go to a page and wait until its document is there.

        Raises:
            Declined: BLOCKED, where it does not answer in time or at all, or where the address guard says no.
        """
        driver = self._running()
        known = set(self._refused)
        try:
            with _refusals(url):
                self._navigate(driver, url)
        except Declined:
            self._explain(set(self._refused) - known)
            raise
        self._explain({"{}:{}".format(*_place(driver.current_url))})

    def _navigate(self, driver: webdriver.Chrome, url: str) -> None:
        try:
            driver.get(url)
        except TimeoutException:
            # A page that never ends loading is still worth reading, unless nothing of it came.
            driver.execute_script("window.stop()")
            if driver.current_url in {"data:,", "about:blank"}:
                raise

    @property
    def _refused(self) -> dict[str, str]:
        return self._proxy.refused if self._proxy else {}

    def _explain(self, places: set[str]) -> None:
        for place in sorted(places & set(self._refused)):
            reason = self._refused[place]
            raise Declined(Outcome.BLOCKED, f"the browser was kept from {place}: {reason}; --allow-address lets an address through")

    @property
    def url(self) -> str:
        return str(self._running().current_url)

    def html(self) -> str:
        """The document as it stands now."""
        return str(self._running().page_source)

    def script(self, source: str, *arguments: Any) -> Any:
        """Run JavaScript in the page and return its value; None where the script fails there."""
        try:
            return self._running().execute_script(source, *arguments)
        except JavascriptException:
            return None

    def click(self, css: str) -> bool:
        """Click the first visible element that matches; False where there is none or it is covered."""
        try:
            for element in self._running().find_elements(By.CSS_SELECTOR, css):
                if element.is_displayed():
                    element.click()
                    return True
        except (NoSuchElementException, WebDriverException):
            return False
        return False

    def visible(self, css: str) -> bool:
        """Whether an element that matches can be seen."""
        script = "return [...document.querySelectorAll(arguments[0])].some(e => e.getClientRects().length > 0)"
        return bool(self.script(script, css))

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
        """End the browser and its profile; may be called twice."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(WebDriverException, OSError):
                driver.quit()
        if self._proxy is not None:
            self._proxy.close()
            self._proxy = None
        if self._profile is not None:
            self._profile.cleanup()
            self._profile = None

    def _running(self) -> webdriver.Chrome:
        if self._driver is None:
            self._driver = self._start()
        return self._driver

    def _start(self) -> webdriver.Chrome:
        os.environ["SE_OFFLINE"] = "true"
        chromium, driver_path = find_browser()
        self._profile = tempfile.TemporaryDirectory(prefix="boxwright-chromium-", ignore_cleanup_errors=True)
        self._proxy = GuardedProxy(self._guard, [self._trusted] if self._trusted[0] else [])
        options = _options(self._settings, chromium, Path(self._profile.name), self._proxy.url)
        try:
            driver = webdriver.Chrome(options, Service(driver_path))
        except WebDriverException as error:
            self.close()
            first_line = str(error.msg).splitlines()[0]
            raise MissingServiceError(f"Chromium does not start ({first_line}); `{INSTALL}` installs one that fits its driver") from error
        driver.set_page_load_timeout(self._settings.timeout_s)
        driver.set_script_timeout(self._settings.timeout_s)
        endings = [f"*.{ending}{tail}" for ending in (*_IMAGE_ENDINGS, *_MEDIA_ENDINGS) for tail in ("", "?*")]
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": endings})
        return driver


def _options(settings: SourceSettings, chromium: str, profile: Path, proxy_url: str) -> Options:
    options = Options()
    options.binary_location = chromium
    options.page_load_strategy = "eager"
    for flag in (*_FLAGS, f"--user-data-dir={profile}", f"--lang={settings.market}", f"--proxy-server={proxy_url}"):
        options.add_argument(flag)
    if os.geteuid() == 0:  # Chromium's sandbox refuses to start as root
        options.add_argument("--no-sandbox")
    options.add_argument(f"--user-agent={_named(settings.contact)}")
    options.add_experimental_option("prefs", _NO_IMAGES)
    options.add_experimental_option("excludeSwitches", ["enable-logging"])
    return options


def _named(contact: str) -> str:
    return f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome {user_agent(contact)}"


def _place(url: str) -> tuple[str, int]:
    """Host and port of a URL; the host is "" where it has none."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", 0


@contextlib.contextmanager
def _refusals(url: str) -> Iterator[None]:
    host = _place(url)[0] or url
    try:
        yield
    except TimeoutException:
        raise Declined(Outcome.BLOCKED, f"{host} did not answer the browser in time", 10.0) from None
    except WebDriverException as error:
        first_line = str(error.msg).splitlines()[0]
        raise Declined(Outcome.BLOCKED, f"the browser could not open {host}: {first_line}", 10.0) from None
