"""What to ask next, and when it is enough: quotas, queries by their yield, expansion.

The planner decides and records; it asks nothing itself (:mod:`collect.gather` does). Where every query stands lies in the
ledger's `queries`, so that a killed collection goes on where it was.

A query's score is `(kept images + prior) / (pages asked + 1)`: what a further page may bring. The prior is high for the
definition's own queries, lower for synonyms, lowest for what a source suggested, so each is tried, best hopes first, and
those that bring kept images are followed first. Caps per domain and author are the pipeline's, which knows what is kept.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from collect.definition import Definition
from collect.ledger import Ledger
from collect.licenses import allows
from collect.net.domains import registrable_domain
from collect.records import Candidate, State
from collect.sources.source import Outcome, Page

OWN, SYNONYM = "", "synonym"
_PRIORS = {OWN: 10.0, SYNONYM: 5.0}
_SUGGESTED_PRIOR = 3.0
#: Further queries taken from one page of results, and in all for one class on one source.
_PER_PAGE, _PER_CLASS = 6, 40
#: A dry query is asked again from its beginning after this long: new pictures come.
_STALE = timedelta(days=7)
#: URLs of one class that may wait for download before its searches pause.
_AHEAD = 2000
#: A source whose last pages for a class showed nothing new is not asked what was only suggested.
_BARREN_PAGES = 3
_QUARANTINED = "SELECT sha256 FROM urls WHERE url = ? AND state = 'QUARANTINED' AND reason = 'licence_unknown'"
_WAITING = "('FOUND', 'ALLOWED', 'LEASED', 'RETRY')"


class Query(NamedTuple):
    """One query on one source for one class: the key of a row of `queries`."""

    source: str
    text: str
    class_name: str


@dataclass
class _Progress:
    """Where a query stands; mirrors its row."""

    cursor: str | None = None
    outcome: str = ""
    pages: int = 0
    found: int = 0
    dry: bool = False
    origin: str = OWN

    @property
    def prior(self) -> float:
        return _PRIORS.get(self.origin, _SUGGESTED_PRIOR)


@dataclass
class _Source:
    """A source in this run. `explicit` = the user named what to take: no quota, no expansion."""

    explicit: bool
    closed: str = ""
    not_before: float = 0.0
    refusals: int = 0


@dataclass
class _Held:
    """A page of results that was not all written down yet, and what follows it."""

    candidates: deque[Candidate]
    next_cursor: str | None
    dry: bool
    new: int = 0


@dataclass
class Tally:
    """Images kept and URLs waiting, by class; fresh for a moment only."""

    kept: dict[str, int] = field(default_factory=dict)
    waiting: dict[str, int] = field(default_factory=dict)
    read_at: float = 0.0
    took_s: float = 0.0


def is_explicit(source: str) -> bool:
    """Whether a source's name says itself what to take (`urls:FILE`, `folder:DIR`, `page:URL`, `video:FILE`)."""
    return ":" in source


class Planner:
    """Decides over an open ledger, which it alone uses: one thread at a time.

    `limit` is the number of images to keep in this call, 0 = as many as the quotas ask for. What was asked and kept for a class
    under a former name (`was`) counts for it; what belongs to no class any more is not asked for. `restart` asks dry queries again
    from their beginning; those of explicit sources always are, since a list or folder may have grown.
    """

    def __init__(self, ledger: Ledger, definition: Definition, sources: Sequence[str], limit: int = 0, *, restart: bool = False) -> None:
        self.ledger, self.definition, self.limit = ledger, definition, limit
        self._sources = {name: _Source(is_explicit(name)) for name in sources}
        self._queries: dict[Query, _Progress] = {}
        self._held: dict[Query, _Held] = {}
        self._barren: dict[tuple[str, str], int] = {}
        self._yields: Counter[Query] = Counter()
        self._resting = self._asked = 0
        self._tally, self._yields_until = Tally(), 0.0
        self.kept_before = ledger.num_images()
        self._load(restart)
        self._seed()

    # Deciding

    def next_query(self, source: str) -> Query | None:
        """The most promising query of a source, or None where nothing is to be asked now (see :meth:`pause_s`)."""
        state = self._sources[source]
        if state.closed or time.time() < state.not_before or self.satisfied:
            return None
        wanted = [query for query in self._open_queries(source) if self._room(query, state.explicit)]
        if not wanted:
            return None
        yields = self._fresh_yields()
        return max(wanted, key=lambda query: (self._score(query, yields), -len(query.text)))

    def pause_s(self, source: str) -> float | None:
        """Seconds after which to look again although :meth:`next_query` gave nothing; None = the source is done."""
        state = self._sources[source]
        if state.closed or self.satisfied or not self._open(source):
            return None
        return min(max(state.not_before - time.time(), 0.1), 1.0)

    @property
    def satisfied(self) -> bool:
        """Whether this call has what it wants: its limit, or every quota where no source was named explicitly."""
        if self.limit and sum(self.tally().kept.values()) - self.kept_before >= self.limit:
            return True
        if any(state.explicit for state in self._sources.values()):
            return False
        return all(entry.quota and self.tally().kept.get(entry.name, 0) >= entry.quota for entry in self.definition.classes)

    def verdict(self) -> str:
        """Why the collection ended, in a sentence."""
        kept = self.ledger.num_images() - self.kept_before
        if self.limit and kept >= self.limit:
            return f"the limit of {self.limit} images is reached"
        if self.satisfied:
            return "the quota of every class is met"
        if len(self.closed()) == len(self._sources):
            return f"every source was given up ({'; '.join(f'{name}: {why}' for name, why in self.closed().items())})"
        spent = self._spent(self._sources)
        searched = any(not state.explicit for state in self._sources.values())
        full = [entry.name for entry in self.definition.classes if searched and entry.quota and self._missing(entry.name) <= 0]
        met = f"; quota met for {', '.join(full)}" if full else ""
        if spent and self._resting and not self._asked:
            spent += "; nothing was asked, as all had no more within the last week: --again asks anew"
        vain = "".join(f"; {words}" for entry in self.definition.classes if spent and (words := self._in_vain(entry.name)))
        return (f"no source has more ({spent})" if spent else "stopped before its end") + met + vain

    def ends(self, *, interrupted: bool = False) -> dict[str, str]:
        """Why the collection ended for each class of the definition, in a few words; `interrupted` by a person, or by itself."""
        kept = self.tally(fresh=True).kept
        at_limit = self.limit and sum(kept.values()) - self.kept_before >= self.limit
        return {entry.name: self._end(entry.name, bool(at_limit), interrupted) for entry in self.definition.classes}

    def tally(self, *, fresh: bool = False) -> Tally:
        """Kept and waiting by class; read again only after twenty times as long as reading takes."""
        moment = time.monotonic()
        if fresh or moment - self._tally.read_at > max(0.2, 20 * self._tally.took_s):
            kept = self._count("SELECT class_name, count(*) FROM images WHERE state = 'KEPT' GROUP BY class_name")
            waiting = self._count(f"SELECT class_name, count(*) FROM urls WHERE state IN {_WAITING} GROUP BY class_name")  # noqa: S608
            self._tally = Tally(kept, waiting, moment, time.monotonic() - moment)
        return self._tally

    # Recording

    def record(self, query: Query, page: Page) -> None:
        """Take a page of results in: its finds as far as the quota has room, its further queries, where the query stands.

        What has no room yet is held back, and the query's cursor with it: after a kill the page is asked for again.
        """
        progress, state = self._queries[query], self._sources[query.source]
        progress.outcome = page.outcome
        self._asked += 1
        if page.outcome not in {Outcome.OK, Outcome.EMPTY}:
            self._refused(state, page)
            self._save(query)
            return
        state.refusals = 0
        self._held[query] = _Held(deque(page.candidates), page.next_cursor, page.dry)
        self.release(query)
        self._expand(query, page.suggestions)

    def held(self, query: Query) -> bool:
        """Whether finds of a query are held back; :meth:`release` lets them in, and no further page is needed yet."""
        return query in self._held

    def release(self, query: Query) -> None:
        """Write down finds that were held back, as many as the class has room for, and the cursor once all are in."""
        held, progress = self._held[query], self._queries[query]
        room = len(held.candidates)
        if not self._sources[query.source].explicit:
            room = int(min(room, max(self._room_left(query.class_name), 0)))
        admitted = [held.candidates.popleft() for _ in range(room)]
        held.new += self.ledger.add_finds((candidate, registrable_domain(candidate.url)) for candidate in admitted)
        self._free(admitted)
        self._tally.read_at = 0.0
        progress.found += len(admitted)
        if not held.candidates:
            place = query.source, query.class_name
            self._barren[place] = 0 if held.new else self._barren.get(place, 0) + 1
            del self._held[query]
            progress.pages += 1
            progress.cursor, progress.dry = held.next_cursor, held.dry
            self._save(query)

    def _free(self, candidates: Iterable[Candidate]) -> None:
        """Let images out of quarantine for which a find now states a licence that is allowed."""
        for candidate in candidates:
            if allows(self.definition.collect.licenses, candidate.licence.spdx):
                for (sha256,) in self.ledger.rows(_QUARANTINED, candidate.url):
                    self.ledger.license_image(sha256, candidate.licence)

    def cursor(self, query: Query) -> str | None:
        """Where the next page of a query starts; None = at its beginning."""
        return self._queries[query].cursor

    def close_source(self, source: str, why: str) -> None:
        """Ask a source nothing more in this run; `why` is a sentence or its beginning."""
        self._sources[source].closed = why.rstrip(".")

    def closed(self) -> dict[str, str]:
        """Sources that were given up in this run, and why."""
        return {name: state.closed for name, state in self._sources.items() if state.closed}

    # Inside

    def _load(self, restart: bool) -> None:
        """Where the queries of the definition's classes stand; what was asked under a former name of a class is not asked again."""
        stale = (datetime.now(UTC) - _STALE).isoformat()
        for row in sorted(self.ledger.query_rows(), key=lambda row: row["class_name"] not in self.definition.class_names):
            query = Query(row["source"], row["query"], self.definition.present_name(row["class_name"]))
            if query in self._queries or query.class_name not in self.definition.class_names:
                continue
            again = row["dry"] and (restart or is_explicit(row["source"]) or row["updated_at"] < stale)
            self._resting += bool(row["dry"]) and not again and query.source in self._sources
            self._queries[query] = _Progress(
                cursor=None if again else row["cursor"] or None,
                outcome=row["outcome"],
                pages=row["pages"],
                found=row["found"],
                dry=bool(row["dry"]) and not again,
                origin=row["origin"],
            )

    def _seed(self) -> None:
        for source, state in self._sources.items():
            for entry in self.definition.classes:
                if state.explicit:
                    self._add(Query(source, source.partition(":")[2], entry.name), OWN)
                    if source.startswith(("page:", "video:")):
                        break  # it says nothing about classes: once is enough
                    continue
                for text in entry.queries or (entry.name,):
                    self._add(Query(source, text, entry.name), OWN)
                for text in entry.synonyms:
                    self._add(Query(source, text, entry.name), SYNONYM)

    def _add(self, query: Query, origin: str) -> None:
        if query not in self._queries:
            self._queries[query] = _Progress(origin=origin)
            self._save(query)

    def _expand(self, query: Query, suggestions: Iterable[str]) -> None:
        """Take further queries from a page: only from queries that are ours or have brought images, so as not to drift."""
        progress = self._queries[query]
        if not self.definition.collect.expand_queries or self._sources[query.source].explicit:
            return
        if progress.origin not in _PRIORS and not self._yields[query]:
            return
        known = {other.text.casefold() for other in self._queries if (other.source, other.class_name) == (query.source, query.class_name)}
        for text in list(dict.fromkeys(" ".join(entry.split()) for entry in suggestions))[:_PER_PAGE]:
            if text and text.casefold() not in known and len(known) < _PER_CLASS:
                known.add(text.casefold())
                self._add(Query(query.source, text, query.class_name), f"{query.source} suggested it for '{query.text}'")

    def _refused(self, state: _Source, page: Page) -> None:
        """Wait where the source asks for a short wait, a few times; else give it up for this run."""
        state.refusals += 1
        if page.outcome is Outcome.BLOCKED and 0 < page.retry_after_s <= 60 and state.refusals <= 3:
            state.not_before = time.time() + page.retry_after_s
        else:
            state.closed = f"{page.outcome}: {page.detail or 'it says no more'}"

    def _end(self, class_name: str, at_limit: bool, interrupted: bool) -> str:
        asked = {query.source for query in self._queries if query.class_name == class_name}
        sources = [name for name in self._sources if name in asked]  # the ledger also knows sources of other calls
        if self._missing(class_name) <= 0 and not all(state.explicit for state in self._sources.values()):
            return "quota met"
        more = any(self._open(name, class_name) for name in sources if not self._sources[name].closed)
        waiting = self.tally().waiting.get(class_name, 0)
        if at_limit and (more or waiting):
            return f"limit of {self.limit:,} images reached"
        if more or (interrupted and waiting):
            return "stopped before its end"
        ended = f"no source has more ({self._spent(sources, class_name)})" if sources else "no source was asked for it"
        vain = self._in_vain(class_name)
        return ended + (f"; {waiting:,} still waiting" if waiting else "") + (f"; {vain}" if vain else "")

    def _in_vain(self, class_name: str) -> str:
        """That the queries of a class found nothing at all, in words: most often they are misspelt. "" where they did."""
        asked = {query: progress for query, progress in self._queries.items() if query.class_name == class_name and progress.pages}
        if not asked or any(progress.found for progress in asked.values()):
            return ""
        return f"nothing was found for {class_name}, asked for as {', '.join(sorted({repr(query.text) for query in asked}))}"

    def _spent(self, sources: Iterable[str], class_name: str = "") -> str:
        """Which sources have no more (of one class, or at all) and which were given up; "" where each may still bring some."""
        closed = [f"{name} ({self._sources[name].closed})" for name in sources if self._sources[name].closed]
        dry = [name for name in sources if not self._sources[name].closed and not self._open(name, class_name)]
        return "; ".join(f"{word}: {', '.join(names)}" for word, names in (("dry", dry), ("closed", closed)) if names)

    def _open(self, source: str, class_name: str = "") -> bool:
        """Whether a source may bring more that is wanted, of one class or of any."""
        queries = [query for query in self._open_queries(source) if class_name in {"", query.class_name}]
        return any(self._sources[source].explicit or self._missing(query.class_name) > 0 for query in queries)

    def _open_queries(self, source: str) -> Iterator[Query]:
        """Queries of a source that may bring more, those left out that were only suggested where nothing new comes."""
        for query, progress in self._queries.items():
            if query.source == source and not progress.dry:
                barren = self._barren.get((source, query.class_name), 0) >= _BARREN_PAGES
                if progress.origin in _PRIORS or not barren:
                    yield query

    def _missing(self, class_name: str) -> float:
        quota = next((entry.quota for entry in self.definition.classes if entry.name == class_name), 0)
        return quota - self.tally().kept.get(class_name, 0) if quota else float("inf")

    def _room(self, query: Query, explicit: bool) -> bool:
        if explicit:
            return self.tally().waiting.get(query.class_name, 0) < 5 * _AHEAD
        return self._room_left(query.class_name) > 0

    def _room_left(self, class_name: str) -> float:
        """How many more URLs of a class may wait: if all of them were kept, the quota would be met and not exceeded."""
        return min(self._missing(class_name), _AHEAD) - self.tally().waiting.get(class_name, 0)

    def _score(self, query: Query, yields: Counter[Query]) -> float:
        progress = self._queries[query]
        return (yields[query] + progress.prior) / (progress.pages + 1)

    def _fresh_yields(self) -> Counter[Query]:
        moment = time.monotonic()
        if moment >= self._yields_until:
            rows = self.ledger.rows("SELECT source, query, class_name, count(*) FROM images WHERE state = ? GROUP BY 1, 2, 3", State.KEPT)
            self._yields = Counter()
            for source, text, class_name, number in rows:
                self._yields[Query(source, text, self.definition.present_name(class_name))] += number
            self._yields_until = moment + max(0.5, 20 * (time.monotonic() - moment))
        return self._yields

    def _count(self, sql: str) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for name, number in self.ledger.rows(sql):
            counts[self.definition.present_name(str(name))] += int(number)
        return dict(counts)

    def _save(self, query: Query) -> None:
        progress = self._queries[query]
        row: dict[str, Any] = {"source": query.source, "query": query.text, "class_name": query.class_name, **vars(progress)}
        self.ledger.save_query(row | {"cursor": progress.cursor or "", "dry": int(progress.dry)})
