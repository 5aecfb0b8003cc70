"""The whole review in a real Chromium against the real App and a real mongod, as a person does it: mouse and keyboard."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import re
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from annotate.journal import Event, Journal, Kind, Status, Verdict, box_event, new_box_id, verdict_event
from annotate.review.dataset import sample_id
from annotate.state import of_image
from collect import blobs
from collect import definition as definitions
from collect.ledger import Ledger
from collect.records import ImageRecord, Licence, Reason, State
from collect.workspace import Dataset, Workspace
from tests.browser.app import BACKSPACE, App, Server, chromium, wait

pytestmark = [
    pytest.mark.browser,
    pytest.mark.mongod,
    pytest.mark.skipif(not Path("/usr/bin/chromium").exists(), reason="no Chromium: apt-get install chromium chromium-driver"),
]
SIZE = (400, 300)
NAME = "beach"
#: Notes what the page says from now on: its words stand there for 2.5 s only, less than a busy machine may take to look.
LISTEN = """window.said = []; new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach(
    (node) => node.className === "bw-say" && window.said.push(node.textContent)))).observe(document.body, { childList: true });"""


def make(root: Path, count: int = 6, proposals: int = 2, twins: int = 0) -> tuple[Dataset, list[str]]:
    """A dataset of small pictures; the first ones of the queue have two proposals each, `twins` look the same by their hash.

    Returns the images in queue order (near-duplicates, which stand together, left aside).
    """
    dataset = Workspace.at(root).new_dataset(NAME)
    text = definitions.template(NAME, [(1, "gull"), (2, "crab"), (3, "buoy")])
    definitions.create(dataset, text.replace('definition = ""', 'definition = "The whole animal, feet included."', 1))
    rng = np.random.default_rng(0)
    records = []
    for number in range(count):
        phash = "0123456789abcdef" if number < twins else f"{rng.integers(2**63):016x}"
        buffer = io.BytesIO()
        picture = Image.fromarray(rng.integers(60, 200, (6, 8, 3), dtype=np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        picture.save(buffer, "JPEG")
        data = buffer.getvalue()
        sha = hashlib.sha256(data).hexdigest()
        blobs.store(dataset, sha, "jpg", data, durable=False)
        records.append(
            ImageRecord(
                sha, "jpg", *SIZE, 1, phash, len(data), State.KEPT, Reason.NONE,
                Licence(spdx="CC0-1.0", creator="me"), "folder", "beach", "gull", f"http://127.0.0.1/{sha}", "", "", "2026-01-01",
            )
        )  # fmt: skip
    with Ledger(dataset.ledger) as ledger:
        ledger.add_images(records)
    images = sorted(record.sha256 for record in records)
    with Journal(dataset.labels) as journal:
        journal.append(
            box_event(Kind.PROPOSE, "model:m", image, new_box_id(), Status.PROPOSED, name, (x, 40, 80, 90), score)
            for image in images[:proposals]
            for name, x, score in (("gull", 30, 0.9), ("crab", 150, 0.6))
        )
    return dataset, images


class Scene:
    """A running review, its page and its journal."""

    def __init__(self, dataset: Dataset, images: list[str], server: Server, app: App, shots: Path) -> None:
        self.dataset, self.images, self.server, self.app, self.shots = dataset, images, server, app, shots

    def events(self, since: int = 0) -> list[Event]:
        with Journal(self.dataset.labels) as journal:
            return list(journal.events(after=since))

    def head(self) -> int:
        with Journal(self.dataset.labels) as journal:
            return journal.head()[0]

    def after(self, act: Callable[[], Any], *kinds: str) -> list[Event]:
        """Do something; the journal must then get exactly events of these kinds, in this order."""
        head = self.head()
        act()
        wait(lambda: len(self.events(head)) >= len(kinds), f"{kinds} in the journal, which has {[e.kind for e in self.events(head)]}")
        time.sleep(0.3)
        events = self.events(head)
        assert [event.kind for event in events] == list(kinds)
        return events

    def goes_to(self, act: Callable[[], Any], image: str) -> None:
        act()
        wait(lambda: self.app.sample() == sample_id(image), f"the App to show {image[:12]}")
        self.app.find("lighter-sample-renderer-canvas")

    def shot(self, name: str) -> None:
        self.app.screenshot(self.shots / f"{name}.png")


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(os.environ.get("BOXWRIGHT_SHOTS") or tmp_path_factory.mktemp("shots"))


@contextmanager
def stage(tmp_path: Path, shots: Path, prepare: Callable[[Dataset, list[str]], None] | None = None, **words: int) -> Iterator[Scene]:
    dataset, images = make(tmp_path, **words)
    if prepare is not None:
        prepare(dataset, images)
    server = Server(tmp_path, NAME, "--reviewer", "ann")
    try:
        with chromium(tmp_path / "profile") as driver:
            yield Scene(dataset, images, server, App(driver, server.url), shots)
    finally:
        assert server.stop() == 0, server.errors.read_text()[-3000:]
        assert not Path(f"/proc/{mongod_pid(tmp_path)}").exists(), "mongod is stopped with its last review"


def mongod_pid(root: Path) -> int:
    return int((root / ".boxwright" / "mongo" / "mongod.pid").read_text().split()[0])


@pytest.fixture
def scene(tmp_path: Path, shots: Path) -> Iterator[Scene]:
    with stage(tmp_path, shots) as made:
        yield made


def begin(scene: Scene) -> None:
    """From the grid into Annotate mode on the first image, by Enter."""
    scene.app.open()
    scene.app.find("looker")
    wait(lambda: scene.app.driver.execute_script("return window.__boxwrightKeys === true"), "the keys script")
    scene.shot("grid")
    scene.goes_to(lambda: scene.app.keys("\ue007"), scene.images[0])
    scene.app.find("detection-mode")


def reload(scene: Scene, num_boxes: int) -> None:
    """Load the page anew with an image open: it comes back into Annotate mode by itself, on that image and with its boxes."""
    app, here = scene.app, scene.app.sample()
    # The App itself notes the mode here, in this browser only: an address that is sent to another one opens in Explore mode.
    app.driver.execute_script(
        "Object.keys(localStorage).filter((key) => key.endsWith('_modalMode')).forEach((key) => delete localStorage[key])"
    )
    app.driver.refresh()
    app.find("detection-mode")
    app.find("lighter-sample-renderer-canvas")
    assert app.sample() == here != ""
    boxes = "[data-cy^=annotate-label-]"
    wait(lambda: len([box for box in app.driver.find_elements("css selector", boxes) if box.is_displayed()]) == num_boxes, "its boxes")
    wait(lambda: "left" in app.driver.find_element("id", "bw-bar").text, "the bar")


def test_a_review_by_hand(scene: Scene, tmp_path: Path) -> None:
    app, (one, two, three, four, *_) = scene.app, scene.images
    begin(scene)

    def drawn() -> None:
        app.keys("b")
        wait(lambda: app.there("lighter-sample-renderer-canvas") and "bounding box" in app.driver.page_source, "drawing mode")
        app.drag((0.55, 0.55), (0.75, 0.85), SIZE)

    (draw,) = scene.after(drawn, "draw")
    assert (draw.actor, draw.image, draw.status) == ("reviewer:ann", one, "present")
    assert draw.xywh == pytest.approx((220, 165, 80, 90), abs=4)
    scene.shot("drawn")
    (moved,) = scene.after(lambda: app.drag((0.65, 0.7), (0.75, 0.6), SIZE), "edit")
    assert moved.box == draw.box
    assert moved.xywh == pytest.approx((260, 135, 80, 90), abs=4)
    (relabelled,) = scene.after(lambda: app.keys("3"), "edit")
    assert (relabelled.box, relabelled.category, relabelled.xywh) == (draw.box, "buoy", moved.xywh)
    scene.shot("relabelled")
    app.driver.execute_script(LISTEN)
    app.keys("3")  # its class already: nothing to do, and no field takes the keys that follow
    wait(lambda: app.driver.execute_script("return window.said.length"), "a word about the class")
    assert app.driver.switch_to.active_element.tag_name != "input"
    (gone,) = scene.after(lambda: app.keys(BACKSPACE), "delete")
    assert (gone.box, gone.status) == (draw.box, "gone")

    # What lies at the lower edge can be seen and boxed: the App's own bar neither covers it nor takes the pointer.
    app.keys("b")
    (low,) = scene.after(lambda: app.drag((0.05, 0.985), (0.3, 0.75), SIZE), "draw")
    assert low.xywh == pytest.approx((20, 225, 100, 70.5), abs=4)
    toolbar = app.find("lighter-toolbar")
    assert toolbar.value_of_css_property("background-color") == "rgba(0, 0, 0, 0)"
    shown = app.find("lighter-sample-renderer-canvas").rect
    assert app.driver.find_element("id", "bw-bar").rect["y"] >= shown["y"] + shown["height"] - 2, "the keys cover none of the picture"
    scene.after(lambda: app.keys(BACKSPACE), "delete")

    # Accept: the two proposals become boxes, and the next image is there, still in Annotate mode.
    accepted = scene.after(lambda: scene.goes_to(lambda: app.keys("a"), two), "accept", "accept", "verdict")
    assert {event.actor for event in accepted} == {"reviewer:ann"}
    assert accepted[-1].status == "accepted"
    assert accepted[-1].details["seconds"] > 0
    app.find("detection-mode")
    (rejected,) = scene.after(lambda: scene.goes_to(lambda: app.keys("r"), three), "verdict")
    assert (rejected.image, rejected.status) == (two, "rejected")
    (undone,) = scene.after(lambda: scene.goes_to(lambda: app.keys("z"), two), "undo")
    assert (undone.image, undone.status, undone.details["undoes"]) == (two, "pending", [rejected.seq])
    (sent_back,) = scene.after(lambda: scene.goes_to(lambda: app.keys("n"), three), "verdict")
    assert (sent_back.image, sent_back.status) == (two, "needs_boxes")
    negative = scene.after(lambda: scene.goes_to(lambda: app.keys("0"), four), "verdict")
    assert (negative[0].image, negative[0].status) == (three, "accepted")
    app.keys("?")
    app.find("#bw-help table")
    scene.shot("help")
    app.keys("?")
    wait(lambda: not app.there("#bw-help"), "the help to go")

    # An accept right after a stroke takes the stroke along, and its journal entry comes first.
    app.keys("b")
    wait(lambda: "bounding box" in app.driver.page_source, "drawing mode")

    def stroke_and_accept() -> None:
        app.drag((0.1, 0.1), (0.3, 0.4), SIZE)
        scene.goes_to(lambda: app.keys("a"), scene.images[4])

    stroke, verdict = scene.after(stroke_and_accept, "draw", "verdict")
    assert (stroke.image, verdict.status) == (four, "accepted")

    # Restart, and go on. That the page is still open when the review ends is nothing to be told.
    assert scene.server.stop() == 0
    assert not re.search("Traceback|WARNING", scene.server.errors.read_text())
    head = scene.head()
    scene.server = Server(tmp_path, NAME, "--reviewer", "ann")
    scene.app.url = scene.server.url
    try:
        scene.images = [scene.images[4], *scene.images]  # the first that waits
        begin(scene)
        scene.shot("restarted")
        reload(scene, num_boxes=0)
        (again,) = scene.after(drawn, "draw")
        assert again.image == scene.images[0]
        reload(scene, num_boxes=1)
        scene.shot("reloaded")
        (last,) = scene.after(lambda: scene.goes_to(lambda: app.keys("a"), scene.images[6]), "verdict")
        assert (last.image, last.status) == (scene.images[0], "accepted")
        assert scene.head() == head + 2
        app.find("detection-mode")
    finally:
        assert scene.server.stop() == 0
    with Journal(scene.dataset.labels) as journal:
        assert journal.broken() is None
        assert of_image(journal, one).verdict == "accepted"
        times = [event.time for event in journal.events()]
    assert times == sorted(times)
    assert "boxes a minute" in (scene.dataset.folder / "review-report.html").read_text()
    words = [line for line in scene.server.lines() if "verdict" in line]
    assert [line["verdict"] for line in words] == ["accepted"]


def hide(app: App, category: str) -> None:
    """Set a view that shows only boxes of one class, as the App's view bar does."""
    stage = {
        "_cls": "fiftyone.core.stages.FilterLabels",
        "kwargs": [["field", "boxes"], ["filter", {"$eq": ["$$this.label", category]}], ["only_matches", True], ["trajectories", False]],
    }
    app.driver.execute_script("window.__foo__.executeOperator('set_view', {view: [arguments[0]]})", stage)
    wait(lambda: len([e for e in app.driver.find_elements("css selector", "[data-cy=looker]") if e.is_displayed()]) == 2, "the view of two")


def test_a_view_that_hides_boxes_loses_none(scene: Scene) -> None:
    app, one = scene.app, scene.images[0]
    app.open()
    wait(lambda: app.driver.execute_script("return window.__boxwrightKeys === true"), "the keys script")
    assert not app.there("action-convert-filters-to-view-stages")
    hide(app, "crab")
    scene.goes_to(lambda: app.keys("\ue007"), one)
    app.find("detection-mode")
    app.keys("b")
    wait(lambda: "bounding box" in app.driver.page_source, "drawing mode")
    (draw,) = scene.after(lambda: app.drag((0.55, 0.55), (0.75, 0.85), SIZE), "draw")
    time.sleep(5)  # the App's own clean-up came within four seconds where nothing stood against it
    scene.shot("hiding")
    with Journal(scene.dataset.labels) as journal:
        state = of_image(journal, one)
    assert [(box.category, box.status) for box in state.boxes.values()] == [
        ("gull", "proposed"),
        ("crab", "proposed"),
        (draw.category, "present"),
    ]
    assert [event.kind for event in scene.events(draw.seq)] == []
    assert "the view filters labels (FilterLabels)" in scene.server.errors.read_text()


def test_buttons_and_panel(scene: Scene) -> None:
    app, one = scene.app, scene.images[0]
    app.open()
    app.find("looker")
    accept = '[data-item-id="@boxwright/review/accept"]'
    app.find(accept)
    app.driver.execute_script("window.__foo__.executeOperator('set_selected_samples', {samples: [arguments[0]]})", sample_id(one))
    time.sleep(1)
    scene.after(lambda: app.click(accept), "accept", "accept", "verdict")
    app.click("new-panel-btn")
    app.click("new-panel-option-progress")
    wait(lambda: "1 of 6 images judged" in app.driver.find_element("tag name", "body").text, "the panel's text")
    wait(lambda: "feet included" in app.driver.find_element("tag name", "body").text, "the class guide")
    scene.shot("panel")


def status(url: str, token: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    request = urllib.request.Request(url, body, {"Authorization": f"Bearer {token}", **headers})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_what_the_guard_refuses_and_what_the_page_asks_for(scene: Scene) -> None:
    base, _, token = scene.server.url.partition("/datasets/")[0], "", scene.server.url.rpartition("token=")[2]
    with Journal(scene.dataset.labels):
        picture = scene.dataset.image_path(scene.images[0], "jpg")
    assert status(f"{base}/media?filepath={picture}", token)[0] == 200
    for path in ("/etc/passwd", str(scene.dataset.ledger), f"{scene.dataset.images}/../ledger.sqlite"):
        code, text = status(f"{base}/media?filepath={path}", token)
        assert (code, "only images of the dataset" in text) == (403, True), path
    link = scene.dataset.images / "link.jpg"
    link.symlink_to("/etc/passwd")
    assert status(f"{base}/media?filepath={link}", token)[0] == 403
    assert status(f"{base}/media?filepath={picture}", "wrong")[0] == 403
    assert status(f"{base}/", token, Host="evil.example")[0] == 403
    assert status(f"{base}/", token, Origin="http://evil.example")[0] == 403
    assert status(f"{base}/", token, Origin="http://127.0.0.1:1")[0] == 403
    assert status(f"{base}/", token, Origin=base)[0] == 200
    assert "an SSH tunnel" in status(f"{base}/", token, Host="evil.example")[1]
    execute = json.dumps({"operator_uri": "@boxwright/review/reject", "dataset_name": NAME, "current_sample": sample_id(scene.images[0])})
    for path, body in (
        ("/operators/execute", execute), ("/boxwright/reject", json.dumps({"sample": sample_id(scene.images[0])})),
        ("/graphql", json.dumps({"query": "{ version }"})), ("/events", "{}"), ("/event", "{}"), ("/plugins", None), ("/tag", "{}"),
    ):  # fmt: skip
        data = body.encode() if body else None
        plain = {"Content-Type": "text/plain"}  # what a form of any page may send without asking first
        assert status(base + path, "wrong", data, **plain)[0] == 403, path
        assert status(base + path, token, data, **plain, Origin="http://evil.example")[0] == 403, path
        assert status(base + path, token, data, **plain, Host="evil.example")[0] == 403, path
    asking = http.client.HTTPConnection("127.0.0.1", int(base.rpartition(":")[2]), timeout=30)
    upgrade = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
    asking.request("GET", "/events", headers={"Authorization": f"Bearer {token}", "Connection": "Upgrade", **upgrade})
    assert asking.getresponse().status == 403, "nothing here speaks WebSocket"
    asking.close()
    for path in (
        "/%2e%2e/%2e%2e/etc/passwd",
        "/datasets/..%2f..%2f..%2fetc%2fpasswd",
        "//etc/passwd",
        "/media/../media?filepath=/etc/passwd",
    ):
        assert "root:" not in status(base + path, token)[1], path
    assert status(f"{base}/media?filepath={picture}&filepath=/etc/passwd", token)[0] == 403
    assert scene.head() == 4, "none of this has said anything about an image"

    scene.app.open()
    scene.app.find("looker")
    time.sleep(2)
    asked = [json.loads(entry["message"])["message"] for entry in scene.app.driver.get_log("performance")]
    wanted = {
        event["params"]["requestId"]: event["params"]["request"]["url"] for event in asked if event["method"] == "Network.requestWillBeSent"
    }
    blocked = {
        e["params"]["requestId"] for e in asked if e["method"] == "Network.loadingFailed" and e["params"].get("blockedReason") == "csp"
    }
    outside = [url for number, url in wanted.items() if url.startswith("http") and not url.startswith(base) and number not in blocked]
    assert outside == [], "the page talks to nobody else"
    assert "token" not in scene.app.driver.current_url


# At every key: which image a person saw then. Ours is drawn over the App's while that gets ready.
WITNESS = """
window.bwWitness = [];
window.addEventListener('keydown', (event) => {
  if (event.key !== 'a') return;
  const picture = document.querySelector('#bw-veil img') || document.querySelector('[data-cy="lighter-sample-image"]');
  const seen = picture && picture.complete && picture.naturalWidth ? decodeURIComponent(picture.src).split('/').pop().slice(0, 24) : '';
  window.bwWitness.push(seen);
}, true);
"""


def test_quick_keys_judge_only_images_that_were_seen(tmp_path: Path, shots: Path) -> None:
    with stage(tmp_path, shots, count=24, proposals=24) as scene:
        driver = scene.app.driver
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WITNESS})
        begin(scene)
        wait(lambda: "24 left" in driver.find_element("id", "bw-bar").text, "the bar")
        driver.execute_cdp_cmd("Network.enable", {})
        slow = {"offline": False, "latency": 150, "downloadThroughput": 60_000, "uploadThroughput": 60_000}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
        key = {"key": "a", "code": "KeyA", "text": "a", "windowsVirtualKeyCode": 65}
        for number in range(60):  # hammered, and held down in between
            driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", **key, "autoRepeat": number % 3 == 2})
            if number % 3 != 1:
                driver.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", **key})
            time.sleep(0.05)
        time.sleep(4)
        verdicts = [event for event in scene.events() if event.kind == Kind.VERDICT]
        judged = [sample_id(event.image) for event in verdicts]
        assert 2 <= len(judged) < 24, "some keys were taken, most came too early"
        assert judged == [sample_id(image) for image in scene.images[: len(judged)]], "each image once, in the order of the queue"
        assert set(judged) <= set(driver.execute_script("return window.bwWitness")), "each stood on the screen when a key was pressed"
        assert min(event.details["seconds"] for event in verdicts) >= 0.15


def suspicious(dataset: Dataset, images: list[str]) -> None:
    """The first image was accepted, and an audit holds that a box is missing there."""
    with Journal(dataset.labels) as journal:
        journal.append([verdict_event("reviewer:ann", images[0], Verdict.ACCEPTED)])
    row = {"image": images[0], "box": "", "kind": "missing", "score": 0.9, "category": "buoy", "bbox": [200, 100, 80, 90]}
    time.sleep(0.01)
    (dataset.folder / "audit.json").write_text(json.dumps([row]))


def test_suspects_twins_and_a_killed_database(tmp_path: Path, shots: Path) -> None:
    with stage(tmp_path, shots, suspicious, count=4, twins=2) as scene:
        app, driver = scene.app, scene.app.driver
        begin(scene)
        # The suspect of an accepted image comes first, with its reason, and its box is marked in Annotate mode.
        wait(lambda: app.there("#bw-marks rect"), "the marked suspect")
        assert "missing buoy?" in driver.find_element("id", "bw-marks").text
        assert "suspect: missing" in driver.find_element("id", "bw-bar").text
        assert "accepted by ann" in driver.find_element("id", "bw-bar").text
        scene.shot("suspect")
        before = app.sample()
        (again,) = scene.after(lambda: (app.keys("a"), wait(lambda: app.sample() != before, "the next image")), "verdict")
        assert again.image == scene.images[0]

        # Near-duplicates stand side by side; one key keeps one of them.
        while "near-duplicates" not in driver.find_element("id", "bw-bar").text:
            before = app.sample()
            app.keys("a")
            wait(lambda: app.sample() != before and app.there("lighter-sample-renderer-canvas"), "the next image")  # noqa: B023
            time.sleep(1)
        first = app.sample()
        app.keys("d")
        wait(lambda: len(driver.find_elements("css selector", "#bw-twins img")) == 2, "the two side by side")
        time.sleep(0.5)
        scene.shot("twins")
        (rejected,) = scene.after(lambda: (app.keys("2"), wait(lambda: app.sample() != first, "the one that was kept")), "verdict")
        assert (sample_id(rejected.image), rejected.status) == (first, "rejected")
        wait(lambda: app.there("lighter-sample-renderer-canvas") and not app.there("#bw-veil"), "the kept one to be ready")
        time.sleep(1)  # a key that comes before is not taken
        (undone,) = scene.after(lambda: (app.keys("z"), wait(lambda: app.sample() == first, "the way back")), "undo")
        assert undone.image == rejected.image

        # mongod is killed hard: it comes again, the next stroke and verdict are in the journal as ever.
        app.keys("b")
        wait(lambda: "bounding box" in driver.page_source, "drawing mode")
        scene.after(lambda: app.drag((0.55, 0.55), (0.75, 0.85), SIZE), "draw")
        os.kill(mongod_pid(tmp_path), signal.SIGKILL)
        head = scene.head()
        app.drag((0.1, 0.1), (0.3, 0.4), SIZE)
        wait(lambda: [event.kind for event in scene.events(head)] == ["draw"], "the stroke that was made while there was no database")

        def accepted() -> bool:
            app.keys("a")
            time.sleep(2)
            return app.sample() != first

        wait(accepted, "the queue to go on")
        assert [event.kind for event in scene.events(head)][-1] == "verdict"
        with Journal(scene.dataset.labels) as journal:
            assert len([box for box in of_image(journal, rejected.image).boxes.values() if box.status == "present"]) >= 2
            assert journal.broken() is None


def test_of_a_large_group_only_what_was_shown_is_rejected(tmp_path: Path, shots: Path) -> None:
    with stage(tmp_path, shots, count=12, twins=12) as scene:
        app, driver = scene.app, scene.app.driver
        begin(scene)
        first = app.sample()

        def side_by_side(count: int) -> None:
            app.keys("d")
            wait(lambda: len(driver.find_elements("css selector", "#bw-twins img")) == count, f"{count} side by side")
            script = "return [...document.querySelectorAll('#bw-twins img')].every((picture) => picture.complete && picture.naturalWidth)"
            wait(lambda: driver.execute_script(script), "their pictures")
            sheet = "const sheet = document.querySelector('#bw-twins > div'); return sheet.scrollHeight <= sheet.clientHeight"
            assert driver.execute_script(sheet), "all of them are on the screen at once"

        side_by_side(9)
        assert "9 of 12" in driver.find_element("id", "bw-twins").text
        scene.shot("nine")
        rejected = scene.after(lambda: (app.keys("2"), wait(lambda: app.sample() != first, "the kept one")), *["verdict"] * 8)
        kept = app.sample()
        assert (first in {sample_id(event.image) for event in rejected}, kept in {sample_id(event.image) for event in rejected}) == (
            True,
            False,
        )
        wait(lambda: "3 more of the group wait" in driver.page_source, "the word about the rest")
        wait(lambda: app.there("lighter-sample-renderer-canvas") and not app.there("#bw-veil"), "the kept one to be ready")
        time.sleep(1)
        side_by_side(9)
        here = driver.find_elements("css selector", "#bw-twins figure")
        digit = next(place for place, figure in enumerate(here, 1) if "bw-here" in figure.get_attribute("class"))
        assert sum("pending" in figure.text for figure in here) == 4, "the three that wait, and the kept one"
        rest = scene.after(lambda: app.keys(str(digit)), *["verdict"] * 3)
        assert not {event.image for event in rest} & {event.image for event in rejected}
        assert app.sample() == kept
