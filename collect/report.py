"""What became of every URL, in words: each loss by reason, with a sentence and examples (`status --why`)."""

from __future__ import annotations

from typing import Any, TypedDict

from collect.ledger import Ledger
from collect.records import Reason, State

#: One plain sentence per reason. Where a reason can mean two things by state, `STATE(reason)` comes first.
SENTENCES: dict[str, str] = {
    "DENIED(licence)": "The licence is known and not in the definition's allow-list, so the image was not fetched.",
    "QUARANTINED(licence)": "The licence is known and not in the definition's allow-list; the image stays out of every release.",
    Reason.NONE: "Nothing speaks against it.",
    Reason.LICENCE: "The licence is not in the definition's allow-list.",
    Reason.ROBOTS: "The site's robots.txt forbids us this path, or could not be had, which counts as a no (RFC 9309).",
    Reason.OPT_OUT: "The server or the page reserves it: noai, noimageai, noindex, noml or a TDM reservation.",
    Reason.ADDRESS: "The host's address is private or reserved; `--allow-address IP` admits your own servers.",
    Reason.CAP: "The cap per domain or author of the definition is reached (max_per_domain, max_per_author).",
    Reason.SCHEME: "The address is no http or https URL on an ordinary port.",
    Reason.HTTP_4XX: "The server says that it is not there, or not for us (a 4xx status).",
    Reason.HTTP_5XX: "The server failed (a 5xx status); it is asked again later, a few times.",
    Reason.RATE_LIMITED: "The server asked us to come back later (429 or Retry-After).",
    Reason.TIMEOUT: "No whole answer came within the deadline (deadline_s), or it came too slowly.",
    Reason.CONNECTION: "The connection was refused or broke off.",
    Reason.DNS: "The host's name leads nowhere.",
    Reason.TLS: "The server's certificate was not accepted.",
    Reason.REDIRECTS: "Too many redirects, or one that leads to no http address.",
    Reason.TRUNCATED: "Fewer bytes came than the server had announced.",
    Reason.CIRCUIT_OPEN: "Its domain failed so often that it is left alone for a while.",
    Reason.FILE_MISSING: "The file is gone from this machine, or cannot be read.",
    Reason.TOO_MANY_BYTES: "The file is larger than the definition allows (max_megabytes).",
    Reason.TOO_MANY_PIXELS: "The picture has more pixels than the definition allows (max_megapixels).",
    Reason.TOO_MANY_FRAMES: "The animation has more frames than the definition allows (max_frames).",
    Reason.TOO_SMALL: "The shorter side is below the definition's min_side_px.",
    Reason.ASPECT: "The picture is longer and thinner than the definition allows (max_aspect).",
    Reason.EMPTY: "The server sent no bytes at all.",
    Reason.HTML: "The server sent a web page in place of a picture.",
    Reason.NOT_AN_IMAGE: "The bytes are no picture in any format that we know.",
    Reason.BROKEN: "The picture is cut off or damaged and cannot be decoded to its end.",
    "format": "It is a picture, but in a format that browsers, and so the review, cannot show.",
    Reason.DECODER_TIMEOUT: "Decoding took too long and was stopped.",
    Reason.DECODER_CRASH: "Decoding killed its process; the file is not touched again.",
    Reason.BLANK: "The picture is all one colour, or nearly (max_blank).",
    Reason.DARK: "The picture is too dark to box anything (max_dark).",
    Reason.BLURRED: "The picture is too blurred (max_blur).",
    Reason.PLACEHOLDER: "It is a placeholder: 'image not available', or a drawing that came from many hosts (max_placeholder).",
    Reason.WATERMARK: "A watermark or banner covers it (max_watermark).",
    Reason.EXACT: "Byte for byte the same as an image that is there already; its find was added to that one.",
    Reason.NEAR: "The same picture as one that is there already, resized, cut or encoded again.",
    Reason.LICENCE_UNKNOWN: "No licence is stated; it is kept apart and never released. `--license` states one in your own word.",
    Reason.TAKEN_DOWN: "It was kept, and is no longer offered where it came from.",
    Reason.OPTED_OUT: "It was kept, and its server or robots.txt has since reserved it.",
    Reason.RELICENSED: "It was kept, and its source now states a licence that the definition does not allow.",
    Reason.BY_HAND: "Somebody took it out by hand.",
}
#: In this order: what was taken back, refused, lost, then what waits.
_ORDER = (State.REVOKED, State.QUARANTINED, State.DUPLICATE, State.INVALID, State.DENIED, State.GONE, State.RETRY)


class Loss(TypedDict):
    """All URLs that share a state and a reason; `examples` are those of :meth:`collect.ledger.Ledger.examples`."""

    state: str
    reason: str
    count: int
    sentence: str
    examples: list[dict[str, Any]]


def sentence(state: str, reason: str) -> str:
    """What a reason means, in one sentence.

    >>> sentence("INVALID", "html")
    'The server sent a web page in place of a picture.'
    """
    return SENTENCES.get(f"{state}({reason})") or SENTENCES.get(reason, f"The reason is recorded as '{reason}'.")


def explain(ledger: Ledger, examples: int = 3) -> list[Loss]:
    """Every loss by state and reason, the most frequent first within a state, with up to `examples` URLs each."""
    losses = []
    for key, number in ledger.counts().reasons.items():
        state, _, reason = key.rstrip(")").partition("(")
        if state != State.KEPT:
            found = ledger.examples(state, reason, examples)
            losses.append(Loss(state=state, reason=reason, count=number, sentence=sentence(state, reason), examples=found))
    place = {state: number for number, state in enumerate(_ORDER)}
    return sorted(losses, key=lambda loss: (place.get(State(loss["state"]), len(place)), -loss["count"], loss["reason"]))
