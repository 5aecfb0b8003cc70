"""What a person sees of a collection: the live table, its plain lines, the report, the tutorial."""

from __future__ import annotations

import base64
import io
import os
import pty
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

import boxwright
from collect import blobs
from collect.contact_sheet import thumbnail, write_report
from collect.demo.scenes import make_scene
from collect.ledger import Ledger
from collect.ledger_rows import Counts, Settlement
from collect.live import Row, _Watch, table_rows, total
from collect.pipeline import Pipeline
from collect.records import Candidate, ImageRecord, Licence, Reason, State
from collect.workspace import Workspace
from tests.collect.collecting import FREE, encoded, new_dataset, picture

ROOT = Path(__file__).parent.parent.parent


def test_table_rows__each_state_counts_for_the_steps_it_has_passed(workspace: Workspace) -> None:
    _, made = new_dataset(workspace)
    made = replace(made, classes=(replace(made.classes[0], was=("c",)),))
    states = {"FOUND": 1, "DENIED": 2, "RETRY": 3, "INVALID": 4, "DUPLICATE": 5, "QUARANTINED": 6, "KEPT": 7}
    counts = Counts(by_source={("s", "c", state): number for state, number in states.items()})
    #                               found, allowed, fetched, valid, unique, kept
    counts.by_source["s", "thing", "KEPT"] = 10  # what the class is called now
    assert table_rows(counts, made) == [Row("s", "thing", (38, 35, 32, 28, 23, 17))]


def test_thumbnail__upright_and_small(tmp_path: Path) -> None:
    sideways = make_scene(17)
    path = tmp_path / "a.jpg"
    path.write_bytes(sideways.jpeg)
    with Image.open(io.BytesIO(base64.b64decode(thumbnail(path).partition(",")[2]))) as small:
        assert max(small.size) == 160
        assert (small.width > small.height) == (sideways.size_wh[0] > sideways.size_wh[1])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x05\x01\x12\0\x03"  # five entries are told, and none is whole: Pillow warns
    Image.new("RGB", (40, 20)).save(path, exif=exif)
    assert thumbnail(path)
    path.write_bytes(sideways.jpeg[:500])
    assert thumbnail(path) == ""


def test_report__escapes_what_the_web_said(workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    scene = make_scene(0)
    blobs.store(dataset, scene.sha256, "jpg", scene.jpeg, durable=False)
    hostile = 'http://example.org/"><script>alert(1)</script>'
    with Ledger(dataset.ledger) as ledger:
        ledger.add_finds([(Candidate(hostile, "s", class_name="<b>c</b>"), "example.org"), (Candidate(hostile + "2", "s"), "example.org")])
        first, second = ledger.lease(2)
        record = ImageRecord(
            scene.sha256, "jpg", 9, 9, 1, "", 9, State.KEPT, Reason.NONE, Licence(spdx="CC0-1.0"), "s", "q", "<b>c</b>", hostile, "",
            "example.org", "2026",
        )  # fmt: skip
        ledger.settle([
            Settlement(first.url_id, State.KEPT, sha256=scene.sha256, image=record),
            Settlement(second.url_id, State.INVALID, Reason.BROKEN, "<img src=x onerror=alert(1)>"),
        ])  # fmt: skip
        text = write_report(dataset, ledger, made, {"thing": "closed: s (<i>no</i>)"}).read_text()
    assert "<script>" not in text and "<img src=x" not in text and "<b>c</b>" not in text and "<i>no" not in text
    assert text.count("data:image/jpeg;base64,") == 1 and "cannot be decoded to its end" in text


def test_report__says_how_full_each_class_is(workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    (thing,) = made.classes
    made = replace(
        made, classes=(replace(thing, quota=8), replace(thing, name="rarity", id=2, quota=3), replace(thing, name="any", id=3, quota=0))
    )
    with Ledger(dataset.ledger) as ledger:
        ledger.add_finds(
            (Candidate(f"http://a.test/{n}", "urls:/a/long/way/to/the/list.txt" if n % 3 else "openverse", "q", "thing"), "a.test")
            for n in range(9)
        )
        settled = [State.KEPT] * 6 + [State.INVALID, State.DENIED]
        ledger.settle([Settlement(lease.url_id, state) for lease, state in zip(ledger.lease(8), settled, strict=True)])
        steps = total(table_rows(ledger.counts(), made))
        text = write_report(dataset, ledger, made, {"thing": "no source has more (dry: urls)", "any": ""}).read_text()
    thing_rows, rarity, free = re.findall("<tbody>.*?</tbody>", text.partition("<h2>By source")[0])
    assert "6 of 8 kept, 75%" in thing_rows and "width:75.0%" in thing_rows and "dry: urls" in thing_rows
    assert "".join(f'<td class="n">{number}' for number in steps) in thing_rows and steps == (9, 7, 7, 6, 6, 6)
    assert 'title="urls:/a/long/way/to/the/list.txt">urls:…' in thing_rows
    assert "0 of 3 kept, 0%" in rarity and "0 kept, no quota" in free


def test_report__shows_what_was_refused_and_what_was_the_same_twice(workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    given = {
        "whole": picture(1, (300, 200)), "small": picture(1, (300, 200)).resize((150, 100)),
        "black": Image.new("RGB", (300, 200)),
    }  # fmt: skip
    with Ledger(dataset.ledger) as ledger:
        with Pipeline(dataset, made, ledger) as pipeline:
            for name, image in given.items():
                pipeline.take_bytes(encoded(image, "PNG"), Candidate(f"file:///{name}.png", "folder", "", "thing", licence=FREE))
        assert ledger.counts().reasons == {"DUPLICATE(near)": 1, "INVALID(blank)": 1}
        text = write_report(dataset, ledger, made, {}).read_text()
    kept, duplicate, refused = (text.partition(f"<h2>{title}</h2>")[2].partition("<h2>")[0] for title in ("Kept", "Duplicates", "Refused"))
    assert [part.count("data:image/jpeg") for part in (kept, duplicate, refused)] == [1, 2, 1]
    assert "small.png" in duplicate and "black.png" in refused and "the limit is" in refused


def test_live__rates_are_those_of_the_last_seconds_and_nothing_is_promised_at_the_end(workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    made = replace(made, classes=(replace(made.classes[0], quota=10),))

    def shown(at_the_end: bool = False) -> list[list[str]]:
        console = Console(file=io.StringIO(), width=140)
        console.print(watch.table(at_the_end=at_the_end))
        return [re.split(r" +(?!s$)", line.strip()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    with Ledger(dataset.ledger) as ledger:
        ledger.add_finds(
            (Candidate(f"http://a.test/{n}", "urls:/a/long/way/to/the/list.txt" if n % 2 else "openverse", "q", "thing"), "a.test")
            for n in range(8)
        )
        watch = _Watch(ledger, made)
        assert [row[0] for row in shown()] == ["source", "openverse", "urls:…ay/to/the/list.txt", "all"]
        ledger.settle([Settlement(lease.url_id, State.KEPT) for lease in ledger.lease(6)])
        under_way, ended = shown()[-1], shown(at_the_end=True)[-1]
    assert under_way[:-2] == ended[:-2] == ["all", "8", "6", "6", "6", "6", "6", "10"]
    assert float(under_way[-2]) > 0 and under_way[-1].endswith(" s") and ended[-1] == "–"


def test_live__eighty_columns_are_enough(workspace: Workspace) -> None:
    dataset, made = new_dataset(workspace)
    made = replace(made, classes=(replace(made.classes[0], name="barn-owl", quota=1200),))
    with Ledger(dataset.ledger) as ledger:
        ledger.add_finds((Candidate(f"http://a.test/{n}", "wikimedia", "q", "barn-owl"), "a.test") for n in range(8))
        console = Console(file=io.StringIO(), width=80)
        console.print(_Watch(ledger, made).table())
    heading, row = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert heading.split() == [
        "source",
        "class",
        "found",
        "allowed",
        "fetched",
        "valid",
        "unique",
        "kept",
        "quota",
        "kept/s",
        "time",
        "left",
    ]
    assert row.split()[2:] == ["8", "0", "0", "0", "0", "0", "1,200", "0.0", "–"]


def test_live__a_table_on_a_terminal(tmp_path: Path) -> None:
    """The command on a real pseudo-terminal shows a table; its folder source needs no network."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(3):
        (pictures / f"{number}.jpg").write_bytes(make_scene(number).jpeg)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "140"}
    command = [sys.executable, "-m", "boxwright"]
    subprocess.run([*command, "init", "x", "--class", "c", "--root", str(tmp_path)], env=environment, cwd=ROOT, check=True)
    outside, inside = pty.openpty()
    words = ["collect", "x", "--source", f"folder:{pictures}", "--license", "CC0-1.0", "--root", str(tmp_path)]
    process = subprocess.Popen([*command, *words], env=environment, cwd=ROOT, stdin=inside, stdout=inside, stderr=inside)
    os.close(inside)
    seen = b""
    while True:
        try:
            part = os.read(outside, 65536)
        except OSError:  # Linux ends a pseudo-terminal with EIO
            break
        if not part:
            break
        seen += part
    os.close(outside)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert process.wait(timeout=30) == 0, text
    for heading in ("source", "class", "found", "allowed", "fetched", "valid", "unique", "kept", "quota", "time left"):
        assert heading in text
    assert "3 images kept" in text


@pytest.mark.parametrize(
    "line", re.findall(r"^\$ boxwright ((?:init|collect|recheck) .+)$", (ROOT / "docs" / "collect.md").read_text(), re.M)
)
def test_tutorial__every_command_is_understood(line: str) -> None:
    verb, *words = shlex.split(line)
    boxwright.parser_for(verb, boxwright.resolve(verb)).parse_args(words)
