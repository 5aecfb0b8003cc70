"""A headless Chromium that loads no image bytes: finding it, starting it, and leaving nothing of it behind.

Images are kept away twice, since each way alone has a hole: the content setting misses `fetch()` of a picture and the page's
icon, patterns of blocked URLs miss pictures whose address has no such ending. Selenium Manager may not go to the network.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import urllib3
from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from collect.errors import MissingServiceError
from collect.sources.source import SourceSettings
from collect.version import user_agent

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
    # Loopback too goes through the proxy, and nothing goes round it.
    "--proxy-bypass-list=<-loopback>",
    "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
)
_IMAGE_ENDINGS = ("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "avif", "bmp", "ico", "svg", "tif", "tiff", "heic", "jxl")
_OTHER_ENDINGS = ("mp4", "webm", "m4s", "mp3", "ogg", "woff", "woff2", "ttf")
_PREFERENCES = {
    "profile.managed_default_content_settings.images": 2,
    "profile.default_content_setting_values.notifications": 2,
    "download_restrictions": 3,
}
#: Waits until we are gone, however that came about, and then clears away. Arguments: driver, browser, profile.
_SENTINEL = 'read -r _; kill -9 "$1" "$2" 2>/dev/null; sleep 1; rm -rf "$3"'


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


@dataclass
class Chromium:
    """A running browser with a profile of its own; `end` it."""

    driver: webdriver.Chrome
    profile: Path
    _sentinel: subprocess.Popen[bytes] | None = None

    @property
    def process_id(self) -> int:
        """The browser's process, as the lock in its profile names it; 0 = it has none."""
        try:
            return int(str((self.profile / "SingletonLock").readlink()).rpartition("-")[2])
        except (OSError, ValueError):
            return 0

    def watch(self) -> None:
        """Let a small process clear the browser away should this one be killed."""
        command = ["/bin/sh", "-c", _SENTINEL, "sentinel", str(self.driver.service.process.pid), str(self.process_id), str(self.profile)]
        self._sentinel = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)

    def end(self) -> None:
        """End the browser at once, even in the midst of a page; all it has lies in its profile, which goes with it."""
        if self._sentinel is not None:
            self._sentinel.kill()
            self._sentinel.communicate()
        if browser := self.process_id:
            with contextlib.suppress(OSError):
                os.kill(browser, signal.SIGKILL)
        with contextlib.suppress(WebDriverException, OSError, urllib3.exceptions.HTTPError):
            self.driver.quit()
        shutil.rmtree(self.profile, ignore_errors=True)


def launch(settings: SourceSettings, proxy_url: str) -> Chromium:
    """Start Chromium behind a proxy.

    Raises:
        MissingServiceError: it is not here or does not start; names the command that installs it.
    """
    os.environ["SE_OFFLINE"] = "true"
    binary, driver_path = find_browser()
    profile = Path(tempfile.mkdtemp(prefix="boxwright-chromium-"))
    # A session of its own, so that Ctrl-C reaches us alone and we can close the browser in order.
    service = Service(driver_path, env={**os.environ, "TMPDIR": str(profile)}, popen_kw={"start_new_session": True})
    try:
        running = Chromium(webdriver.Chrome(_options(settings, binary, profile, proxy_url), service), profile)
    except WebDriverException as error:
        shutil.rmtree(profile, ignore_errors=True)
        first_line = str(error.msg).splitlines()[0]
        raise MissingServiceError(f"Chromium does not start ({first_line}); `{INSTALL}` installs one that fits its driver") from error
    running.watch()
    running.driver.set_page_load_timeout(settings.timeout_s)
    running.driver.set_script_timeout(settings.timeout_s)
    patterns = [f"*.{ending}{tail}" for ending in (*_IMAGE_ENDINGS, *_OTHER_ENDINGS) for tail in ("", "?*")]
    running.driver.execute_cdp_cmd("Network.enable", {})
    running.driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": patterns})
    return running


def _options(settings: SourceSettings, binary: str, profile: Path, proxy_url: str) -> Options:
    options = Options()
    options.binary_location = binary
    options.page_load_strategy = "eager"
    options.unhandled_prompt_behavior = "dismiss"
    name = f"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome {user_agent(settings.contact)}"
    own = (f"--user-data-dir={profile}", f"--lang={settings.market}", f"--proxy-server={proxy_url}", f"--user-agent={name}")
    for flag in (*_FLAGS, *own):
        options.add_argument(flag)
    if os.geteuid() == 0:  # Chromium's sandbox refuses to start as root
        options.add_argument("--no-sandbox")
    options.add_experimental_option("prefs", _PREFERENCES)
    options.add_experimental_option("excludeSwitches", ["enable-logging"])
    return options
