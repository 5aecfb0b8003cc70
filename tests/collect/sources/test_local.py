"""Lists of URLs and folders."""

from __future__ import annotations

import pytest

from collect.errors import NotFoundError, UsageError
from collect.sources.local import PAGE_SIZE
from collect.sources.source import Outcome, SourceSettings, open_source


def test_urls__plain_lines(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("# mine\nhttp://a.example/1.jpg\n\n  https://b.example/2.png  \nnot a url\nfile:///etc/passwd\n")
    page = open_source(f"urls:{file}", SourceSettings(license="CC0-1.0")).search("q", "cat", None)
    assert [candidate.url for candidate in page.candidates] == ["http://a.example/1.jpg", "https://b.example/2.png"]
    assert {(candidate.licence.spdx, candidate.licence.evidence) for candidate in page.candidates} == {("CC0-1.0", "user")}
    assert page.candidates[0].source == f"urls:{file}"
    assert "2 lines are no http URLs, the first is line 5" in page.detail
    assert page.dry


def test_urls__table_with_classes_and_licences(tmp_path):
    file = tmp_path / "list.csv"
    file.write_text(
        "URL,class,license,creator,title\n"
        'http://a.example/1.jpg,cat,CC BY-SA 4.0,Ann,"One, and only"\n'
        "http://a.example/2.jpg,dog,,,\n"
        "http://a.example/3.jpg,,,,\n"
    )
    urls = open_source(f"urls:{file}", SourceSettings())
    cats, dogs = urls.search("q", "cat", None), urls.search("q", "dog", None)
    assert [candidate.url[-5] for candidate in cats.candidates] == ["1", "3"]
    assert [candidate.url[-5] for candidate in dogs.candidates] == ["2", "3"]
    licence = cats.candidates[0].licence
    assert (licence.spdx, licence.creator, licence.title) == ("CC-BY-SA-4.0", "Ann", "One, and only")
    assert cats.candidates[1].licence.spdx == ""


@pytest.mark.parametrize("resumed", [False, True])
def test_urls__pages(tmp_path, resumed):
    file = tmp_path / "list.txt"
    expected = [f"http://a.example/{number}.jpg" for number in range(2 * PAGE_SIZE + 7)]
    file.write_text("\n".join(expected))
    urls, cursor, found = open_source(f"urls:{file}", SourceSettings()), None, []
    for _ in range(3):
        if resumed:
            urls = open_source(f"urls:{file}", SourceSettings())
        page = urls.search("q", "cat", cursor)
        found += [candidate.url for candidate in page.candidates]
        cursor = page.next_cursor
    assert found == expected
    assert cursor is None


def test_urls__nothing_in_it(tmp_path):
    file = tmp_path / "list.txt"
    file.write_text("# nothing yet\n")
    page = open_source(f"urls:{file}", SourceSettings()).search("q", "cat", None)
    assert page.outcome is Outcome.EMPTY
    assert page.dry


def test_folder__every_image_once_and_read_back(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files = {"a b#1.JPG": b"one", "deep/2.png": b"two", "deep/er/ü.webp": b"three"}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "notes.txt").write_text("no")
    (tmp_path / ".hidden.jpg").write_text("no")
    folder = open_source(f"folder:{tmp_path}", SourceSettings(license="MIT"))
    page = folder.search("", "cat", None)
    assert {folder.read(candidate) for candidate in page.candidates} == set(files.values())
    assert all(candidate.url.startswith("file:///") for candidate in page.candidates)
    assert page.dry
    (tmp_path / "deep/2.png").unlink()
    with pytest.raises(NotFoundError, match=r"2\.png"):
        folder.read(next(candidate for candidate in page.candidates if candidate.title == "2.png"))


def test_folder__real_classes_by_subfolder(real_data):
    folder = open_source(f"folder:{real_data / 'face-crops'}", SourceSettings())
    page = folder.search("", "mask", None)
    assert len(page.candidates) == 600
    assert all("/face-crops/mask/" in candidate.url for candidate in page.candidates)
    first = folder.search("", "face", None)
    second = folder.search("", "face", first.next_cursor)
    assert (len(first.candidates), len(second.candidates), second.next_cursor) == (1000, 200, None)


def test_open_source__what_is_not_there(tmp_path):
    with pytest.raises(NotFoundError, match="nowhere"):
        open_source(f"folder:{tmp_path}/nowhere", SourceSettings())
    with pytest.raises(NotFoundError, match="nowhere"):
        open_source(f"urls:{tmp_path}/nowhere", SourceSettings())
    with pytest.raises(UsageError, match="did you mean 'openverse'"):
        open_source("openvers", SourceSettings())
    with pytest.raises(UsageError, match="folder:DIR"):
        open_source("folder:", SourceSettings())
