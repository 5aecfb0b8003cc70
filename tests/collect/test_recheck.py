"""What a recheck makes of servers that answer 200 with something else in an image's place."""

from __future__ import annotations

import asyncio

from PIL import Image, ImageDraw

from collect.ledger import Ledger
from collect.pipeline import DownloadSettings, Pipeline
from collect.recheck import Recheck
from collect.records import Reason, State
from collect.sources.source import SourceSettings
from collect.workspace import Workspace
from tests.collect.collecting import encoded, find, jpeg, new_dataset, picture
from tests.collect.hostile_server import HostileServer, answer

LOCAL = DownloadSettings(("127.0.0.1",), polite=False)


def drawing() -> bytes:
    """An 'image not available' as hosts draw it."""
    image = Image.new("RGB", (320, 240), (230, 230, 230))
    ImageDraw.Draw(image).text((90, 110), "Image not available", fill=(120, 120, 120))
    return encoded(image, "PNG")


def page(words: str) -> bytes:
    return answer(f"<!doctype html><title>{words}</title>".encode(), headers="Content-Type: text/html\r\n")


def test_recheck__a_stand_in_means_taken_down_and_anything_doubtful_nothing(workspace: Workspace) -> None:
    first = {f"/{name}": answer(jpeg(number)) for number, name in enumerate(
        ("page", "led", "drawn", "twin-a", "twin-b", "anew", "robot", "login", "gel%C3%B6scht", "same", "other", "broken")
    )}  # fmt: skip
    later = {
        "/page": page("This photo is no longer available"),
        "/led": b"HTTP/1.1 302 Found\r\nLocation: /photo_unavailable.png\r\nContent-Length: 0\r\n\r\n",
        "/photo_unavailable.png": answer(jpeg(500)),
        "/drawn": answer(drawing()),
        "/twin-a": answer(jpeg(501)),
        "/twin-b": answer(jpeg(501)),
        "/anew": answer(encoded(picture(5), "JPEG", quality=60)),
        "/robot": page("Are you human? Please solve the captcha"),
        "/login": page("Sign in to go on</title><script>let words = 'page not found'</script><input type=password>"),
        "/gel%C3%B6scht": page("Dieses Bild wurde gelöscht"),
        "/other": answer(jpeg(502)),
        "/broken": answer(b"\xff\xd8 no picture"),
    }
    answers = dict(first)

    async def serve(path: str, headers: dict[str, str], writer: asyncio.StreamWriter) -> bool:
        writer.write(answers[path])
        await writer.drain()
        return True

    dataset, made = new_dataset(workspace)
    with HostileServer(serve) as server, Ledger(dataset.ledger) as ledger:
        find(ledger, [server.url(path) for path in first], source="urls:list.txt")
        with Pipeline(dataset, made, ledger, LOCAL) as pipeline:
            pipeline.drain()
        assert ledger.num_images() == len(first)
        answers |= later
        tried = Recheck(ledger, made, LOCAL, dry_run=True).run(lambda _name: SourceSettings())
        assert ledger.num_images() == len(first)
        result = Recheck(ledger, made, LOCAL).run(lambda _name: SourceSettings())
        revoked = {record.source_url.rpartition("/")[2]: record.reason for record in ledger.images(State.REVOKED)}
    assert revoked == dict.fromkeys(("page", "led", "drawn", "twin-a", "twin-b", "gel%C3%B6scht"), Reason.TAKEN_DOWN)
    assert result.revoked == tried.revoked == {Reason.TAKEN_DOWN: 6}
    assert (result.checked, result.unreachable) == (12, 3)  # pages for robots and members and a broken file say nothing
