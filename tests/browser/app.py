"""Drives the FiftyOne App in headless Chromium as a person would: mouse and keyboard only."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).parents[2]
PATIENCE_S = 150.0


def wait(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """Ask again until the condition holds; the failure says what was waited for."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        try:
            value = condition()
        except (StaleElementReferenceException, WebDriverException):
            value = None
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {patience_s:g} s in vain for {what}")


class Server:
    """`boxwright review … --json` as a process of its own."""

    def __init__(self, root: Path, name: str, *words: str) -> None:
        self.errors = root / "review.stderr"
        self.output = root / f"review.{time.monotonic_ns()}.stdout"
        command = [sys.executable, "-m", "boxwright", "review", name, "--root", str(root), "--port", "0", "--no-open", "--json", *words]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("FIFTYONE_")} | {"PYTHONPATH": str(ROOT)}
        with self.errors.open("ab") as errors, self.output.open("wb") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=root, env=environment)
        try:
            self.url = wait(self._first, "the review's address")["url"]
        except BaseException:
            self.stop()
            raise

    def _first(self) -> dict[str, Any] | None:
        assert self.process.poll() is None, f"the review ended: {self.errors.read_text()[-3000:]}"
        lines = self.lines()
        return lines[0] if lines else None

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def chromium(folder: Path, size_wh: tuple[int, int] = (1500, 950)) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--enable-unsafe-swiftshader", f"--window-size={size_wh[0]},{size_wh[1]}",
        f"--user-data-dir={folder}", "--disable-dev-shm-usage",
    ):  # fmt: skip
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


class App:
    """The page, by the marks that the App puts on its parts."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver, self.url = driver, url

    def find(self, mark: str, patience_s: float = PATIENCE_S) -> Any:
        def visible() -> Any:
            shown = [element for element in self.driver.find_elements(By.CSS_SELECTOR, _css(mark)) if element.is_displayed()]
            return shown[0] if shown else None

        return wait(visible, mark, patience_s)

    def there(self, mark: str) -> bool:
        return any(element.is_displayed() for element in self.driver.find_elements(By.CSS_SELECTOR, _css(mark)))

    def click(self, mark: str) -> None:
        def clicked() -> bool:
            self.find(mark).click()
            return True

        wait(clicked, f"a click on {mark}")

    def open(self, sample: str | None = None) -> None:
        self.driver.get(self.url + (f"&id={sample}" if sample else ""))
        self.find("modal" if sample else "fo-grid")

    def sample(self) -> str:
        """The id of the sample that is open, as the address says; "" in the grid."""
        return str(self.driver.execute_script("return new URL(location.href).searchParams.get('id') || ''"))

    def annotate(self) -> None:
        self.click("annotate")
        self.find("detection-mode")
        self.find("lighter-sample-renderer-canvas")

    def settled(self) -> None:
        wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "[data-cy=annotation-save-state][data-settled=true]"), "a settled save")

    def drag(self, start: tuple[float, float], end: tuple[float, float], image_wh: tuple[int, int]) -> None:
        """Drag between two points given relative to the image, which is letterboxed in the canvas."""
        canvas = self.find("lighter-sample-renderer-canvas")
        x1, y1 = self.point(canvas, start, image_wh)
        x2, y2 = self.point(canvas, end, image_wh)
        builder = ActionBuilder(self.driver, duration=60)
        pointer = builder.pointer_action
        pointer.move_to_location(x1, y1)
        pointer.pointer_down()
        for step in range(1, 6):
            pointer.move_to_location(round(x1 + (x2 - x1) * step / 5), round(y1 + (y2 - y1) * step / 5))
        pointer.pointer_up()
        builder.perform()

    def press_at(self, where: tuple[float, float], image_wh: tuple[int, int]) -> None:
        canvas = self.find("lighter-sample-renderer-canvas")
        x, y = self.point(canvas, where, image_wh)
        builder = ActionBuilder(self.driver, duration=60)
        builder.pointer_action.move_to_location(x, y)
        builder.pointer_action.click()
        builder.perform()

    def point(self, canvas: Any, where: tuple[float, float], image_wh: tuple[int, int]) -> tuple[int, int]:
        rect = canvas.rect
        scale = min(rect["width"] / image_wh[0], rect["height"] / image_wh[1])
        left = rect["x"] + (rect["width"] - image_wh[0] * scale) / 2
        top = rect["y"] + (rect["height"] - image_wh[1] * scale) / 2
        return round(left + where[0] * image_wh[0] * scale), round(top + where[1] * image_wh[1] * scale)

    def keys(self, *keys: str) -> None:
        chain = ActionChains(self.driver)
        for key in keys:
            chain.send_keys(key)
        chain.perform()

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(path))


def _css(mark: str) -> str:
    return mark if any(sign in mark for sign in "[.#: ") else f"[data-cy={mark}]"


BACKSPACE, RIGHT = Keys.BACKSPACE, Keys.ARROW_RIGHT
