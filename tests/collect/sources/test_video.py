"""Frames of a video that OpenCV wrote and reads back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from collect.errors import NotFoundError, UsageError
from collect.sources.source import SourceSettings, open_source
from collect.sources.video import frame_number

RATE = 10
#: Grey level of each scene, and the frame with which it begins; the video has 65 frames.
SCENES = ((0, 30), (23, 95), (41, 220))
NUM_FRAMES = 65


def level(number):
    return [grey for start, grey in SCENES if start <= number][-1]


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "a clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (96, 64))
    assert writer.isOpened()
    for number in range(NUM_FRAMES):
        frame = np.full((64, 96, 3), level(number), np.uint8)
        frame[10:20, number : number + 10] = 255 - level(number)  # a thing that moves
        writer.write(frame)
    writer.release()
    return path


def test_search__a_frame_a_step_and_scene_changes_first(video):
    source = open_source(f"video:{video}", SourceSettings(license="CC0-1.0"))
    page = source.search("", "thing", None)
    assert [frame_number(candidate.url) for candidate in page.candidates] == [0, 10, 23, 30, 41, 50, 60]
    assert page.dry
    assert {candidate.group for candidate in page.candidates} == {video.as_uri()}
    assert {candidate.licence.spdx for candidate in page.candidates} == {"CC0-1.0"}
    source.close()


def test_read__gives_the_frame_that_is_named_in_any_order(video):
    source = open_source(f"video:{video}", SourceSettings())
    candidates = source.search("", "thing", None).candidates
    for candidate in [*reversed(candidates), candidates[2]]:
        picture = cv2.imdecode(np.frombuffer(source.read(candidate), np.uint8), cv2.IMREAD_GRAYSCALE)
        assert picture.shape == (64, 96)
        number = frame_number(candidate.url)
        assert abs(int(np.median(picture)) - level(number)) < 6
        bright = picture[15].astype(int) - level(number)
        assert abs(int(np.argmax(np.abs(bright) > 20)) - number) <= 2
    assert source.read(candidates[0]) == source.read(candidates[0])
    source.close()


def test_search__resumes_at_the_cursor(video, monkeypatch):
    monkeypatch.setattr("collect.sources.video.PAGE_SIZE", 2)
    found, cursor = [], None
    while True:
        source = open_source(f"video:{video}", SourceSettings())
        page = source.search("", "thing", cursor)
        found += [frame_number(candidate.url) for candidate in page.candidates]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == [0, 10, 23, 30, 41, 50, 60]


def test_open__the_step_is_an_option(video):
    source = open_source(f"video:{video}", SourceSettings(options={"frame_step_s": "2.5"}))
    assert [frame_number(candidate.url) for candidate in source.search("", "thing", None).candidates] == [23, 41, 50]
    source.close()
    for options, words in (({"frame_step": "2"}, "did you mean 'frame_step_s'"), ({"frame_step_s": "0"}, "above 0")):
        with pytest.raises(UsageError, match=words):
            open_source(f"video:{video}", SourceSettings(options=options))


def test_open__no_video(tmp_path):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(NotFoundError, match="ffmpeg"):
        open_source(f"video:{tmp_path / 'text.mp4'}", SourceSettings())
    with pytest.raises(NotFoundError, match="nowhere"):
        open_source(f"video:{tmp_path / 'nowhere.mp4'}", SourceSettings())
