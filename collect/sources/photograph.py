"""A picture of a page as a real browser shows it, for the demo and the documentation."""

from __future__ import annotations

import time
from pathlib import Path

from collect.errors import MissingServiceError
from collect.sources.chromium import find_browser

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--enable-unsafe-swiftshader",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def photograph(url: str, path: Path, selector: str, *, size_wh: tuple[int, int] = (1500, 950), timeout_s: float = 90.0) -> Path:
    """Open a page of our own, wait until `selector` is there and the page is quiet, and write a PNG.

    Raises:
        MissingServiceError: there is no browser, or the page did not come up in time.
    """
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    chromium, driver_path = find_browser()
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS, f"--window-size={size_wh[0]},{size_wh[1]}"):
        options.add_argument(flag)
    driver = webdriver.Chrome(options, Service(driver_path))
    try:
        driver.get(url)
        until = time.monotonic() + timeout_s
        while not driver.find_elements("css selector", selector):
            if time.monotonic() > until:
                raise MissingServiceError(f"{url} did not show {selector} within {timeout_s:.0f} s")
            time.sleep(0.25)
        time.sleep(3)  # pictures are drawn after their places are there
        driver.save_screenshot(str(path))
    except WebDriverException as error:
        raise MissingServiceError(f"the browser could not show {url}: {error.msg}") from error
    finally:
        driver.quit()
    return path
