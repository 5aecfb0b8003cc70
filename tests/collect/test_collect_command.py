"""`boxwright collect` and `recheck` against the demo's site: real HTTP, real processes, the command as a person runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import boxwright
from collect.demo.scenes import make_scenes
from collect.demo.site import Site
from collect.files import exclusive
from collect.ledger import Ledger
from collect.records import Licence, Reason, State
from collect.report import SENTENCES, explain
from collect.workspace import Workspace

ROOT = Path(__file__).parent.parent.parent
ALLOW = ("--allow-address", "127.0.0.1")


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with Site(scenes=make_scenes(45, seed=1)) as running:
        yield running


@pytest.fixture
def demo(workspace: Workspace, site: Site, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with the demo's own definition, its sources pointed at the site."""
    monkeypatch.setenv("BOXWRIGHT_BING_API_KEY", "any")
    text = (ROOT / "datasets" / "demo" / "dataset.toml").read_text()
    urls = "".join(f'{name} = "{site.base_url}"\n' for name in ("openverse", "bing-api", "bing-images"))
    path = workspace.new_dataset("demo").definition
    path.parent.mkdir(parents=True)
    path.write_text(text.replace("[annotate]", f"[collect.base_urls]\n{urls}\n[annotate]"))
    return workspace


def run(workspace: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert boxwright.main([*words, "--json", "--quiet", "--root", str(workspace.root)]) == 0, capsys.readouterr().err
    return dict(json.loads(capsys.readouterr().out))


def fails(workspace: Workspace, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = boxwright.main([*words, "--root", str(workspace.root)])
    return code, capsys.readouterr().err


def test_collect__everything_there_is_then_nothing_twice(demo: Workspace, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(demo, capsys, "collect", "demo", *ALLOW)
    dataset = demo.dataset("demo")
    reasons = set(result["reasons"])
    assert {"DUPLICATE(exact)", "DUPLICATE(near)", "QUARANTINED(licence_unknown)", "DENIED(robots)", "DENIED(opt_out)"} <= reasons
    assert {"INVALID(html)", "INVALID(broken)", "GONE(http_4xx)"} <= reasons
    assert result["waiting"] == 0 and "no source has more" in result["verdict"]
    assert not any(path.startswith("/private/") for path in site.requests)
    with Ledger(dataset.ledger) as ledger:
        kept = list(ledger.images())
        assert result["states"]["KEPT"] == len(kept) > 20
        assert all(record.licence.spdx for record in kept)
        assert {record.class_name for record in kept} == {"coin", "cup", "motorcycle"}
        assert any(record.orientation == 6 for record in kept)
        for record in kept:
            assert dataset.image_path(record.sha256, record.extension).is_file()
            assert site.truth(record.sha256) == site.truth(record.source_url)
        assert any(row["origin"] and row["found"] for row in ledger.query_rows())  # suggestions were followed
        states = ledger.counts().states
    before = sum(number for path, number in site.requests.items() if path in site.offers)
    again = run(demo, capsys, "collect", "demo", *ALLOW)
    assert again["states"] == {"KEPT": 0}
    assert sum(number for path, number in site.requests.items() if path in site.offers) == before
    with Ledger(dataset.ledger) as ledger:
        assert ledger.counts().states == states
    report = (dataset.folder / "report.html").read_text()
    assert report.count("data:image/jpeg;base64,") > len(kept) and "robots.txt forbids" in report
    assert report.count("of 120 kept") == 3 and report.count("no source has more (dry: openverse, bing-api, bing-images)") == 3


def test_collect__limit_is_kept_exactly_and_the_rest_waits(demo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    first = run(demo, capsys, "collect", "demo", "--source", "openverse", "--limit", "5", *ALLOW)
    assert first["states"]["KEPT"] == 5 and first["waiting"] > 0
    second = run(demo, capsys, "collect", "demo", "--source", "openverse", "--limit", "3", *ALLOW)
    assert second["states"]["KEPT"] == 3


def test_collect__limit_is_kept_exactly_on_a_folder(
    demo: Workspace, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [offer for path, offer in site.offers.items() if path.startswith("/photos/") and not offer.headers and not offer.failures][:6]
    for number, offer in enumerate(good):
        (tmp_path / f"{number}.jpg").write_bytes(offer.body)
    words = ("collect", "demo", "--source", f"folder:{tmp_path}", "--license", "CC-BY-4.0", "--limit", "2")
    assert [run(demo, capsys, *words)["states"]["KEPT"] for _ in range(3)] == [2, 2, 2]


@pytest.mark.parametrize("cap", ["max_per_author = 2", "max_per_domain = 6"])
def test_collect__a_cap_holds_and_one_that_is_lifted_lets_the_rest_in(
    demo: Workspace, capsys: pytest.CaptureFixture[str], cap: str
) -> None:
    dataset, most = demo.dataset("demo"), int(cap.rsplit(maxsplit=1)[-1])
    free = dataset.definition.read_text()
    dataset.definition.write_text(free.replace("[collect]\n", f"[collect]\n{cap}\n", 1))
    capped = run(demo, capsys, "collect", "demo", "--source", "openverse", *ALLOW)
    assert capped["reasons"]["DENIED(cap)"] > 0
    with Ledger(dataset.ledger) as ledger:
        by_place = ledger.kept_by_creator() if "author" in cap else ledger.kept_by_domain()
        assert max(by_place.values()) == most
    dataset.definition.write_text(free)
    lifted = run(demo, capsys, "collect", "demo", "--source", "openverse", *ALLOW)
    assert lifted["states"]["KEPT"] > 0
    with Ledger(dataset.ledger) as ledger:
        assert "DENIED(cap)" not in ledger.counts().reasons


def test_collect__options_go_to_the_source_and_a_wrong_one_is_named(
    demo: Workspace, site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    definition = demo.dataset("demo").definition
    free = definition.read_text()
    definition.write_text(free + '\n[collect.options.bing-api]\nmkt = "de-DE"\nminWidth = 64\n')
    run(demo, capsys, "collect", "demo", "--source", "bing-api", "--limit", "1", *ALLOW)
    definition.write_text(free + "\n[collect.options.bing-api]\nmk = 1\n")
    assert "did you mean 'mkt'" in fails(demo, capsys, "collect", "demo", "--source", "bing-api", *ALLOW)[1]
    definition.write_text(free + "\n[collect.options.bing-app]\nmkt = 1\n")
    assert "did you mean 'bing-api'" in fails(demo, capsys, "collect", "demo", "--source", "openverse", *ALLOW)[1]


def test_collect__killed_at_any_instant_loses_and_doubles_nothing(demo: Workspace, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-m", "boxwright", "collect", "demo", "--source", "openverse", *ALLOW, "--root", str(demo.root), "--quiet"]
    dataset = demo.dataset("demo")
    for least in (1, 8):
        process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True)
        deadline = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < deadline:
            if len(list(dataset.images.glob("*/*/*"))) >= least:
                os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.01)
        process.wait(timeout=10)
    run(demo, capsys, "collect", "demo", "--source", "openverse", *ALLOW)
    with Ledger(dataset.ledger) as ledger:
        records = list(ledger.images(State.KEPT, State.QUARANTINED))
        assert not {"FOUND", "LEASED"} & set(ledger.counts().states)
    stored = {path.stem for path in dataset.images.glob("*/*/*")}
    assert {record.sha256 for record in records} == stored
    wanted = {offer.path for offer in site.offers.values() if "openverse" in offer.listed and offer.path.startswith("/photos/")}
    assert len(records) > len(wanted) // 2


def test_collect__two_at_once_are_refused(demo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with exclusive(demo.dataset("demo").locks / "collect", "collect demo"):
        code, words = fails(demo, capsys, "collect", "demo", "--source", "openverse", *ALLOW)
    assert code == 9 and "collect demo" in words


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("collect", "demo", "--source", "openvers"), 2, "did you mean 'openverse'"),
        (("collect", "nothing"), 3, "boxwright init nothing"),
        (("collect", "demo", "--limit", "-1"), 2, "above 0"),
        (("collect", "demo", "--license", "free for all"), 2, "no SPDX id"),
        (("collect", "demo", "--source", "urls:/nowhere.txt"), 3, "/nowhere.txt"),
        (("collect", "demo", "--source", "openverse", "--allow-address", "home"), 2, "home"),
        (
            ("collect", "demo", "--source", "page:http://127.0.0.1:1/", *ALLOW),
            5,
            "every source was given up (page:http://127.0.0.1:1/: BLOCKED",
        ),
        (("recheck", "nothing"), 3, "boxwright init nothing"),
    ],
)
def test_collect__bad_input_is_a_sentence(
    demo: Workspace, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, said: str
) -> None:
    got, text = fails(demo, capsys, *words)
    assert got == code and said in text


def test_collect__tells_of_restricted_terms_and_of_options_that_nobody_reads(demo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    assert "terms of bing-api, bing-images restrict" in fails(demo, capsys, "collect", "demo", "--dry-run")[1]
    assert "terms" not in fails(demo, capsys, "collect", "demo", "--source", "openverse", "--dry-run")[1]
    definition = demo.dataset("demo").definition
    definition.write_text(definition.read_text() + "\n[collect.options.folder]\ndepth = 2\n")
    code, words = fails(demo, capsys, "collect", "demo", "--source", "openverse", "--dry-run")
    assert code == 2 and "unknown source in [collect]'s options 'folder'" in words


def test_collect__dry_run_touches_nothing(demo: Workspace, site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    before = site.requests.total()
    plan = run(demo, capsys, "collect", "demo", "--dry-run")
    assert {row["source"] for row in plan["would_ask"]} == {"openverse", "bing-api", "bing-images"}
    assert site.requests.total() == before and not demo.dataset("demo").ledger.exists()


def test_collect__urls_and_folder_take_the_users_word_for_the_licence(
    demo: Workspace, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [offer for path, offer in site.offers.items() if path.startswith("/photos/") and not offer.headers and not offer.failures][:6]
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{site.base_url}{offer.path}\n" for offer in good[:3]))
    unknown = run(demo, capsys, "collect", "demo", "--source", f"urls:{listed}", *ALLOW)
    assert unknown["states"] == {"KEPT": 0, "QUARANTINED": 3}
    folder = tmp_path / "mine"
    folder.mkdir()
    for number, offer in enumerate(good[3:]):
        (folder / f"{number}.jpg").write_bytes(offer.body)
    (folder / "broken.jpg").write_bytes(good[0].body[:900])
    stated = run(demo, capsys, "collect", "demo", "--source", f"folder:{folder}", "--license", "CC-BY-4.0")
    assert stated["states"] == {"KEPT": 3, "INVALID": 1}
    with Ledger(demo.dataset("demo").ledger) as ledger:
        assert {(record.licence.spdx, record.licence.evidence) for record in ledger.images()} == {("CC-BY-4.0", "user")}


def test_collect__private_addresses_are_refused_unless_allowed(
    demo: Workspace, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listed = tmp_path / "list.txt"
    path = next(iter(site.offers))
    listed.write_text(f"{site.base_url}{path}\n")
    before = site.requests[path]
    assert run(demo, capsys, "collect", "demo", "--source", f"urls:{listed}")["reasons"] == {"DENIED(address)": 1}
    assert site.requests[path] == before
    again = run(demo, capsys, "collect", "demo", "--source", f"urls:{listed}", "--license", "CC0-1.0", *ALLOW)
    assert again["states"]["KEPT"] == 1


def test_collect__a_wider_definition_and_a_longer_list_are_taken_up(
    demo: Workspace, site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = [offer for path, offer in site.offers.items() if path.startswith("/photos/") and not offer.headers and not offer.failures][:4]
    listed = tmp_path / "list.csv"
    licences = ("CC-BY-4.0", "CC-BY-NC-4.0", "", "CC-BY-4.0")
    rows = [f"{site.base_url}{offer.path},{spdx}\n" for offer, spdx in zip(good, licences, strict=True)]
    words = ("collect", "demo", "--source", f"urls:{listed}", *ALLOW)
    listed.write_text("url,license\n" + "".join(rows[:3]))
    assert run(demo, capsys, *words)["states"] == {"KEPT": 1, "DENIED": 1, "QUARANTINED": 1}
    definition = demo.dataset("demo").definition
    definition.write_text(definition.read_text().replace('"CC-BY", ', '"CC-BY", "CC-BY-NC", '))
    assert run(demo, capsys, *words)["states"] == {"KEPT": 1}
    listed.write_text("url,license\n" + "".join(rows))
    assert run(demo, capsys, *words, "--license", "CC0-1.0")["states"] == {"KEPT": 2}  # the new line, and the one without a licence
    with Ledger(demo.dataset("demo").ledger) as ledger:
        assert ledger.counts().states == {"KEPT": 4}


def test_recheck__revokes_on_a_clear_word_only(demo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    with Site(scenes=make_scenes(12, seed=5)) as site:
        text = demo.dataset("demo").definition.read_text()
        demo.dataset("demo").definition.write_text("".join(
            f'{line.split(" =")[0]} = "{site.base_url}"\n' if "http://127.0.0.1" in line else f"{line}\n" for line in text.splitlines()
        ))  # fmt: skip
        words = ("demo", *ALLOW)
        run(demo, capsys, "collect", *words, "--source", "openverse")
        with Ledger(demo.dataset("demo").ledger) as ledger:
            paths = {record.source_url.removeprefix(site.base_url): record.sha256 for record in ledger.images()}
        gone, reserved, relicensed, *others = paths
        site.take_down(gone)
        site.opt_out(reserved)
        site.relicense(relicensed, Licence("CC-BY-NC-2.0", "https://creativecommons.org/licenses/by-nc/2.0/", "somebody"))
        tried = run(demo, capsys, "recheck", *words, "--dry-run")
        assert tried["kept"] == len(paths)
        result = run(demo, capsys, "recheck", *words)
    assert result["revoked"] == tried["revoked"] == {"taken_down": 1, "opted_out": 1, "relicensed": 1}
    assert result["kept"] == len(others) > 0
    unreached = run(demo, capsys, "recheck", *words)  # the site has gone: that says nothing
    assert unreached["unreachable"] == unreached["kept"] == len(others)
    with Ledger(demo.dataset("demo").ledger) as ledger:
        reasons = {record.sha256: record.reason for record in ledger.images(State.REVOKED)}
        assert reasons == {
            paths[gone]: Reason.TAKEN_DOWN, paths[reserved]: Reason.OPTED_OUT, paths[relicensed]: Reason.RELICENSED,
        }  # fmt: skip
        assert {loss["reason"]: loss["count"] for loss in explain(ledger) if loss["state"] == "REVOKED"} == {
            "taken_down": 1, "opted_out": 1, "relicensed": 1,
        }  # fmt: skip


def test_report__every_reason_has_its_sentence() -> None:
    assert {str(reason) for reason in Reason} <= {str(key) for key in SENTENCES}


@pytest.mark.parametrize("engine", ["pycurl", "ray"])
def test_collect__an_engine_that_is_missing_is_named(
    demo: Workspace, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setitem(sys.modules, engine, None)  # as if it were not installed: `import ray` raises ImportError
    monkeypatch.delitem(sys.modules, "collect.net.curl_wire", raising=False)
    code, words = fails(demo, capsys, "collect", "demo", "--source", "openverse", "--engine", engine, *ALLOW)
    assert code == 5 and f"boxwright[{engine}]" in words


@pytest.mark.parametrize("engine", ["pycurl", pytest.param("ray", marks=pytest.mark.slow)])
def test_collect__other_engines_bring_what_the_local_one_brings(demo: Workspace, site: Site, engine: str) -> None:
    pytest.importorskip(engine)
    command = [sys.executable, "-m", "boxwright", "collect", "demo", "--source", "openverse", *ALLOW, "--root", str(demo.root), "--json"]
    done = subprocess.run(
        [*command, "--engine", engine], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    assert result["states"]["KEPT"] > 15 and result["waiting"] == 0
    with Ledger(demo.dataset("demo").ledger) as ledger:
        assert all(site.truth(record.sha256) == site.truth(record.source_url) for record in ledger.images())


@contextmanager
def collecting(demo: Workspace, site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A collection in a process of its own that has some images, and their folder; a picture takes a second, else all may be there."""
    monkeypatch.setattr(site, "offers", {path: replace(offer, delay_s=1.0) for path, offer in site.offers.items()})
    command = [sys.executable, "-m", "boxwright", "collect", "demo", "--source", "openverse", *ALLOW, "--root", str(demo.root)]
    images = demo.dataset("demo").images
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(images.glob("*/*/*")) and time.monotonic() < deadline:
                time.sleep(0.01)
            yield process, images
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_collect__ctrl_c_keeps_what_is_done_and_reports_it(
    demo: Workspace, site: Site, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    dataset = demo.dataset("demo")
    with collecting(demo, site, monkeypatch) as (process, images):
        process.send_signal(number)
        _, words = process.communicate(timeout=60)
    assert process.returncode == 130 and "Run the same command again to go on" in words and "Traceback" not in words
    with Ledger(dataset.ledger) as ledger:
        assert "LEASED" not in ledger.counts().states  # what was in flight has been given back
        kept = Counter(record.class_name for record in ledger.images())
        assert {record.sha256 for record in ledger.images()} == {path.stem for path in images.glob("*/*/*")}
    report = (dataset.folder / "report.html").read_text()
    for name in ("coin", "cup", "motorcycle"):
        assert f"<span>{kept[name]} of 120 kept, {kept[name] / 120:.0%}</span>" in report
    assert report.count("stopped before its end") == 3


def test_collect__a_second_ctrl_c_ends_at_once(demo: Workspace, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = demo.dataset("demo")
    with collecting(demo, site, monkeypatch) as (process, images):
        assert process.stderr is not None
        time.sleep(1)  # the image is in the ledger as well
        stored = next(images.glob("*/*/*"))
        stored.unlink()
        os.mkfifo(stored)  # nobody writes to it: whoever draws its thumbnail waits for ever
        process.send_signal(signal.SIGINT)
        while "report.html is being written" not in (line := process.stderr.readline()):
            assert line, "it ended without a word about the report"
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in words
    assert not (dataset.folder / "report.html").exists()
    assert not list(dataset.folder.glob("*report*")), "nor half of one"


@pytest.mark.browser
def test_collect__bing_images_with_a_real_browser(demo: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the fragment gives nothing, Chromium opens the page, says no to cookies, scrolls and presses "see more"."""
    with Site(scenes=make_scenes(45, seed=1), fragments=False) as site:
        definition = demo.dataset("demo").definition
        text = "".join(
            f'bing-images = "{site.base_url}"\n' if line.startswith("bing-images =") else f"{line}\n"
            for line in definition.read_text().splitlines()
        )
        definition.write_text(text.replace("per_domain = 8", "per_domain = 8\nexpand_queries = false"))
        result = run(demo, capsys, "collect", "demo", "--source", "bing-images", "--license", "CC-BY-4.0", "--limit", "8", *ALLOW)
        assert result["states"]["KEPT"] == 8
        assert site.requests["/images/search"] >= 1
