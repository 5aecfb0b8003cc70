"""Pages that ask whether one is a robot. They are recognised so as to stop there; none is ever solved or gone round."""

from __future__ import annotations

_MARKS = (
    "captcha",
    "cf-turnstile",
    "cf-challenge",
    "unusual traffic",
    "not a robot",
    "are you human",
    "/sorry/index",
    "/httpservice/retry/enablejs",
)


def challenge_in(html: str) -> bool:
    """Whether a page that has no results is a challenge; a page with results may carry such words and be none."""
    lowered = html.casefold().replace("’", "'")
    return any(mark in lowered for mark in _MARKS)
