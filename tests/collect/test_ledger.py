"""The ledger: every URL once, every find kept, leases that a dead process leaves come back."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from collect.errors import CorruptError, StorageError
from collect.ledger import Ledger
from collect.ledger_rows import Settlement
from collect.records import Candidate, Licence, Reason, State


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.sqlite") as opened:
        yield opened


def candidate(number: int, query: str = "cat", **more: object) -> tuple[Candidate, str]:
    return Candidate(f"http://example.org/{number}.jpg", "openverse", query, "cat", number, **more), "example.org"


def test_add_finds__counts_a_url_once_and_keeps_all_finds(ledger: Ledger) -> None:
    assert ledger.add_finds([candidate(1), candidate(2)]) == 2
    assert ledger.add_finds([candidate(1, "kitten"), candidate(3)]) == 1
    ledger.settle([Settlement(lease.url_id, State.KEPT, sha256=f"{lease.url_id:064x}") for lease in ledger.lease(10)])
    assert [find["query"] for find in ledger.finds_of(f"{1:064x}")] == ["cat", "kitten"]


def test_lease__hands_out_each_url_once_whatever_the_clock_says(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.add_finds(candidate(n) for n in range(5))
    assert len(ledger.lease(3)) == 3
    monkeypatch.setattr(time, "time", lambda: 4e9)  # a laptop was asleep
    assert len(ledger.lease(10)) == 2
    assert ledger.lease(10) == ledger.lease(10, per_domain=4) == []
    assert ledger.next_due() is None


def test_reclaim__what_was_put_off_by_a_wrong_clock_is_due(ledger: Ledger) -> None:
    ledger.add_finds(candidate(n) for n in range(2))
    one, two = ledger.lease(2)
    rests = {one.url_id: time.time() + 3600, two.url_id: time.time() + 10 * 365 * 86400}  # the clock was ten years ahead
    ledger.settle([Settlement(url_id, State.RETRY, Reason.TIMEOUT, retry_at=moment) for url_id, moment in rests.items()])
    assert ledger.lease(5) == []
    ledger.reclaim()
    assert [lease.url_id for lease in ledger.lease(5)] == [two.url_id]


def test_reclaim__gives_back_what_a_dead_process_held(ledger: Ledger) -> None:
    ledger.add_finds(candidate(n) for n in range(5))
    ledger.lease(5)
    assert ledger.lease(5) == []
    assert ledger.reclaim() == 5
    assert len(ledger.lease(5)) == 5


def test_lease__takes_the_licence_of_the_find_that_knows_one(ledger: Ledger) -> None:
    ledger.add_finds([candidate(1), candidate(1, "other", licence=Licence("CC0-1.0", creator="Ada"))])
    assert ledger.lease(1)[0].licence == Licence("CC0-1.0", creator="Ada")


def test_settle__retry_waits_and_counts_tell_the_reason(ledger: Ledger) -> None:
    ledger.add_finds(candidate(n) for n in range(2))
    one, two = ledger.lease(2)
    later = time.time() + 60
    ledger.settle(
        [Settlement(one.url_id, State.RETRY, Reason.TIMEOUT, retry_at=later), Settlement(two.url_id, State.GONE, Reason.HTTP_4XX)]
    )
    assert ledger.lease(5) == []
    assert ledger.next_due() == pytest.approx(later)
    counts = ledger.counts()
    assert counts.states == {"RETRY": 1, "GONE": 1}
    assert counts.reasons == {"RETRY(timeout)": 1, "GONE(http_4xx)": 1}


def test_transaction__that_fails_leaves_nothing(ledger: Ledger) -> None:
    class StopHereError(Exception):
        pass

    def finds() -> Iterator[tuple[Candidate, str]]:
        yield candidate(1)
        raise StopHereError

    with pytest.raises(StopHereError):
        ledger.add_finds(finds())
    assert ledger.counts().states == {}


def test_open__says_when_the_file_is_no_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database at all, though long enough for a header" * 50)
    with pytest.raises(CorruptError, match="restore it from a backup"):
        Ledger(path)


def test_open__that_cannot_be_written_beside_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").mkdir()  # as on a read-only disk: root writes in spite of permissions, so those cannot be tested
    with pytest.raises(StorageError, match="make its folder writable") as caught:
        Ledger(tmp_path / "ledger.sqlite")
    assert "free space" not in str(caught.value)


def test_open__brings_an_older_ledger_up_to_date(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        ledger.add_finds([candidate(1)])
    with sqlite3.connect(tmp_path / "ledger.sqlite") as database:
        database.execute("DROP INDEX images_by_sha1")  # as schema 2 was
        database.execute("PRAGMA user_version = 2")
    database.close()
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        assert ledger.image_of_sha1("0" * 40) is None
        assert ledger.counts().states == {"FOUND": 1}
        plan = ledger.rows("EXPLAIN QUERY PLAN SELECT * FROM images WHERE json_extract(extra, '$.sha1') = 'x'")
    assert "images_by_sha1" in plan[0]["detail"]


def test_open__refuses_a_newer_schema(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "ledger.sqlite")
    database.execute("PRAGMA user_version = 99")
    database.close()
    with pytest.raises(CorruptError, match="newer Boxwright"):
        Ledger(tmp_path / "ledger.sqlite")
