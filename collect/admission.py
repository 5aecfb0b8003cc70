"""What a picture is to a dataset: new, a duplicate, too poor, without a licence — decided, stored and recorded in this order.

Bytes are written before the row that names them is committed. One thread at a time works here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import itemgetter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from collect import blobs
from collect.clock import now
from collect.definition import CollectPolicy, Definition
from collect.images.duplicates import NearIndex
from collect.images.hashing import Look, looks
from collect.images.limits import Refusal
from collect.images.similarity import confirmed
from collect.ledger import Ledger
from collect.ledger_rows import Lease, Settlement
from collect.licenses import allows
from collect.net.domains import registrable_domain
from collect.net.fetch import Lost
from collect.records import ImageRecord, Picture, Reason, State
from collect.workspace import Dataset

if TYPE_CHECKING:
    from collect.lookalikes import Lookalikes

_REPEATS_OF_A_PLACEHOLDER = 5
_PREVIEWS = 60  # per reason and call: more are not shown
_DRAWN = 0.3  # the score from which a picture may be a drawing


@dataclass(frozen=True)
class Arrival:
    """A leased URL that was tried: bytes with the verdict on them, or `lost`."""

    lease: Lease
    data: bytes = b""
    verdict: Picture | Refusal | None = None
    lost: Lost | None = None
    status: int = 0
    final_url: str = ""
    redirects: int = 0
    etag: str = ""
    robots: str = ""
    group: str = ""


@dataclass(frozen=True)
class _Batch:
    """What is asked of the books once for several arrivals, by the pictures' sha256s; `new` grows with what is kept of them.

    `near` names pictures of this batch too, whether they are kept or not.
    """

    held: set[str]
    looked: dict[str, Look]
    near: dict[str, list[tuple[str, int]]]
    new: dict[str, ImageRecord] = field(default_factory=dict)


@dataclass(frozen=True)
class RetryPolicy:
    """How often a URL is tried, and how long it rests: `first_s`, doubled each time, at most `longest_s`."""

    max_attempts: int = 4
    first_s: float = 20.0
    longest_s: float = 3600.0


class Admission:
    """Turns arrivals into settlements, blobs and rows."""

    def __init__(
        self, dataset: Dataset, definition: Definition, ledger: Ledger, retries: RetryPolicy, lookalikes: Lookalikes | None = None
    ) -> None:
        self._lookalikes = lookalikes
        self._dataset, self._policy, self._ledger, self._retries = dataset, definition.collect, ledger, retries
        self._index: NearIndex | None = None
        self._drawn: set[str] = set()  # drawings of this batch that were known already
        self._by_domain: dict[str, int] | None = None
        self._by_creator: dict[str, int] = {}
        self._num_previews: Counter[Reason] = Counter()

    def refuse_early(self, lease: Lease) -> Settlement | None:
        """What can be said before anything is requested: licence, a file that is held already, caps."""
        spdx = lease.licence.spdx
        if spdx and not allows(self._policy.licenses, spdx):
            detail = f"{spdx} is not among the allowed licences"
            return Settlement(lease.url_id, State.DENIED, Reason.LICENCE, detail)
        return self._held_already(lease) or self._over_cap(lease)

    def admit(self, arrivals: Sequence[Arrival]) -> list[Settlement]:
        """Decide, store and commit; returns what was settled, in order. Syncing is left to :mod:`collect.durability`."""
        settlements: list[Settlement] = []
        batch = self._looked_up([arrival.verdict for arrival in arrivals if isinstance(arrival.verdict, Picture)])
        for arrival in arrivals:
            settlement = self._decide(arrival, batch)
            settlements.append(settlement)
            if settlement.image:
                batch.new[settlement.sha256] = settlement.image
                blobs.store_all(self._dataset, [blobs.Blob(settlement.sha256, settlement.image.extension, arrival.data)], durable=False)
        self._ledger.settle(settlements)
        kept = [settlement for settlement in settlements if settlement.image]
        self._near.extend([s.sha256 for s in kept], [batch.new[s.sha256].phash for s in kept], [s.windows for s in kept])
        self._refuse_logos()
        return settlements

    def _looked_up(self, pictures: Sequence[Picture]) -> _Batch:
        held = self._ledger.held(picture.sha256 for picture in pictures)
        fresh = {picture.sha256: picture for picture in pictures if picture.sha256 not in held}
        seen = looks([(picture.phash, picture.signature) for picture in fresh.values()])
        among = NearIndex(self._policy.near_duplicate_bits)
        among.extend(list(fresh), [picture.phash for picture in fresh.values()], [one.windows for one in seen])
        near = {
            sha256: sorted([*older, *(other for other in newer if other[0] != sha256)], key=itemgetter(1))
            for sha256, older, newer in zip(fresh, self._near.suspects(seen), among.suspects(seen), strict=True)
        }
        return _Batch(held, dict(zip(fresh, seen, strict=True)), near)

    def settle(self, settlements: Sequence[Settlement]) -> None:
        """Record what was refused early."""
        self._ledger.settle(settlements)

    def _decide(self, arrival: Arrival, batch: _Batch) -> Settlement:
        if arrival.lost is not None:
            return self._lost(arrival.lease, arrival.lost, arrival.robots)
        picture = arrival.verdict
        assert picture is not None
        facts = Settlement(
            arrival.lease.url_id, State.INVALID, status=arrival.status, final_url=arrival.final_url, redirects=arrival.redirects,
            etag=arrival.etag, robots=arrival.robots, num_bytes=len(arrival.data),
            sha256="" if isinstance(picture, Refusal) else picture.sha256,
        )  # fmt: skip
        if isinstance(picture, Refusal):
            return replace(facts, reason=picture.reason, detail=picture.detail)
        early = self._exact(arrival.lease, picture, facts, batch) or self._poor(picture, facts)
        if early:
            return early
        late = self._near_duplicate(picture, facts, batch) or self._capped(arrival.lease, facts)
        if late:
            return late
        vector = self._lookalikes.vector(arrival.data) if self._lookalikes else b""
        seen = batch.looked[picture.sha256]
        return self._lookalike(arrival.data, picture, vector, facts) or self._new(arrival, picture, seen, facts, vector)

    def _lost(self, lease: Lease, lost: Lost, robots: str) -> Settlement:
        settlement = Settlement(
            lease.url_id, lost.state, lost.reason, lost.detail, status=lost.status, final_url=lost.final_url,
            redirects=lost.redirects, robots=robots,
        )  # fmt: skip
        if lost.state != State.RETRY and not (lost.unheard and lease.domain in self._givers):
            return settlement
        if lease.attempts >= self._retries.max_attempts:
            return replace(settlement, state=State.GONE, detail=f"{lost.detail}; tried {lease.attempts} times")
        rest_s = min(self._retries.longest_s, self._retries.first_s * 2 ** (lease.attempts - 1))
        return replace(settlement, state=State.RETRY, retry_at=time.time() + max(rest_s, lost.retry_after_s))

    def _exact(self, lease: Lease, picture: Picture, facts: Settlement, batch: _Batch) -> Settlement | None:
        held = self._ledger.image(picture.sha256) if picture.sha256 in batch.held else batch.new.get(picture.sha256)
        if held is None:
            return None
        if picture.quality.get("placeholder", 0.0) >= _DRAWN:
            self._drawn.add(held.sha256)
        return self._found_again(held, lease, facts)

    def _held_already(self, lease: Lease) -> Settlement | None:
        """A file whose source states the sha1 of an image that is held (a Commons file under its new name, say) is not fetched."""
        held = self._ledger.image_of_sha1(lease.sha1) if lease.sha1 else None
        if held is None:
            return None
        facts = Settlement(lease.url_id, State.DUPLICATE, detail="not fetched: its source states this image's sha1", sha256=held.sha256)
        return self._found_again(held, lease, facts)

    def _found_again(self, held: ImageRecord, lease: Lease, facts: Settlement) -> Settlement:
        duplicate = replace(facts, state=State.DUPLICATE, reason=Reason.EXACT, duplicate_of=held.sha256)
        if held.state == State.QUARANTINED and held.reason == Reason.LICENCE_UNKNOWN and allows(self._policy.licenses, lease.licence.spdx):
            self._ledger.license_image(held.sha256, lease.licence)
            return replace(duplicate, detail="its licence freed the image from quarantine")
        return duplicate

    def _refuse_logos(self) -> None:
        """A flat drawing that came from many places is a logo or an 'image not available'. Told once the batch is in the ledger."""
        while self._drawn:
            sha256 = self._drawn.pop()
            held, places = self._ledger.image(sha256), {urlsplit(url)[1:3] for url in self._ledger.urls_of(sha256)}
            if held and held.state in {State.KEPT, State.QUARANTINED} and len(places) >= _REPEATS_OF_A_PLACEHOLDER:
                self._ledger.set_image_state(sha256, State.INVALID, Reason.PLACEHOLDER)

    def _poor(self, picture: Picture, facts: Settlement) -> Settlement | None:
        for name, reason, limit in quality_limits(self._policy):
            score = picture.quality.get(name, 0.0)
            if score > limit:
                detail = f"{name} {score:.2f}; the limit is {limit:g}"
                return replace(facts, reason=reason, detail=detail, preview=self._preview(reason, picture))
        return None

    def _near_duplicate(self, picture: Picture, facts: Settlement, batch: _Batch) -> Settlement | None:
        for sha256, bits in batch.near[picture.sha256]:
            held = batch.new[sha256] if sha256 in batch.new else self._ledger.image(sha256)
            if held is not None and confirmed(picture.signature, str(held.extra.get("signature", ""))):
                preview, detail = self._preview(Reason.NEAR, picture), f"{bits} of 64 bits apart"
                return replace(facts, state=State.DUPLICATE, reason=Reason.NEAR, detail=detail, duplicate_of=sha256, preview=preview)
        return None

    def _lookalike(self, data: bytes, picture: Picture, vector: bytes, facts: Settlement) -> Settlement | None:
        found = self._lookalikes.same(data, vector) if self._lookalikes else None
        if found is None:
            return None
        sha256, cosine = found
        preview, detail = self._preview(Reason.NEAR, picture), f"keypoints fit; cosine {cosine:.2f}"
        return replace(facts, state=State.DUPLICATE, reason=Reason.NEAR, detail=detail, duplicate_of=sha256, preview=preview)

    def _preview(self, reason: Reason, picture: Picture) -> str:
        self._num_previews[reason] += 1
        return picture.signature if self._num_previews[reason] <= _PREVIEWS else ""

    def _new(self, arrival: Arrival, picture: Picture, seen: Look, facts: Settlement, vector: bytes) -> Settlement:
        lease = arrival.lease
        known = bool(lease.licence.spdx)
        state, reason = (State.KEPT, Reason.NONE) if known else (State.QUARANTINED, Reason.LICENCE_UNKNOWN)
        extra = {"signature": picture.signature, "sha1": picture.sha1, **({"frames": picture.frames} if picture.frames > 1 else {})}
        record = ImageRecord(
            sha256=picture.sha256, extension=picture.extension, width=picture.width, height=picture.height,
            orientation=picture.orientation, phash=picture.phash, num_bytes=picture.num_bytes, state=state, reason=reason,
            licence=lease.licence, source=lease.source, query=lease.query, class_name=lease.class_name, source_url=lease.url,
            page_url=lease.page_url, domain=lease.domain or registrable_domain(lease.url), found_at=now(), group=arrival.group,
            quality=picture.quality, extra=extra,
        )  # fmt: skip
        network = ""
        if self._lookalikes:
            self._lookalikes.add(record.sha256, vector)
            network = self._lookalikes.name
        self._givers.add(record.domain)
        self._count(record.domain, lease.licence.creator)
        return replace(facts, state=state, reason=reason, image=record, windows=seen.windows, vector=vector, network=network)

    # Caps per domain and per author

    def _over_cap(self, lease: Lease) -> Settlement | None:
        self._load_counts()
        policy, creator = self._policy, lease.licence.creator
        if policy.max_per_domain and (self._by_domain or {}).get(lease.domain, 0) >= policy.max_per_domain:
            return Settlement(lease.url_id, State.DENIED, Reason.CAP, f"{lease.domain} gave {policy.max_per_domain} images already")
        if policy.max_per_author and creator and self._by_creator.get(creator, 0) >= policy.max_per_author:
            return Settlement(lease.url_id, State.DENIED, Reason.CAP, f"{creator} gave {policy.max_per_author} images already")
        return None

    def _capped(self, lease: Lease, facts: Settlement) -> Settlement | None:
        over = self._over_cap(lease)
        return replace(facts, state=over.state, reason=over.reason, detail=over.detail, sha256="") if over else None

    def _count(self, domain: str, creator: str) -> None:
        if self._by_domain is not None:
            self._by_domain[domain] = self._by_domain.get(domain, 0) + 1
            self._by_creator[creator] = self._by_creator.get(creator, 0) + 1

    def _load_counts(self) -> None:
        if self._by_domain is None and (self._policy.max_per_domain or self._policy.max_per_author):
            self._by_domain, self._by_creator = self._ledger.kept_by_domain(), self._ledger.kept_by_creator()

    @cached_property
    def _givers(self) -> set[str]:
        """Domains that an image was kept of: where one of them cannot be connected to, it is down and not gone."""
        return set(self._ledger.kept_by_domain())

    @property
    def _near(self) -> NearIndex:
        """Loaded on first use, so that a resumed collection fetches while a million hashes are read."""
        if self._index is None:
            self._index = NearIndex(self._policy.near_duplicate_bits)
            rows = list(self._ledger.image_hashes())
            self._index.extend([row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])
        return self._index


def quality_limits(policy: CollectPolicy) -> list[tuple[str, Reason, float]]:
    """`(score's name, reason, limit)` in the order in which a poor picture is told why."""
    return [
        ("blank", Reason.BLANK, policy.max_blank),
        ("placeholder", Reason.PLACEHOLDER, policy.max_placeholder),
        ("dark", Reason.DARK, policy.max_dark),
        ("blurred", Reason.BLURRED, policy.max_blur),
        ("watermark", Reason.WATERMARK, policy.max_watermark),
    ]
