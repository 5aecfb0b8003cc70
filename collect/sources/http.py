"""How the search clients talk HTTP: one session with an honest name, time-outs, a byte cap, and typed refusals.

Keys travel in headers or parameters and must show up nowhere else. So redirects are not followed (a custom header would go
along), messages name host and path only, and urllib3, which logs whole URLs at DEBUG, is kept quiet.
"""

from __future__ import annotations

import contextlib
import email.utils
import functools
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec
from urllib.parse import urlsplit

import requests
import urllib3

from collect.sources.source import Outcome, Page, SourceSettings, key_variable
from collect.version import user_agent

MAX_BYTES = 32 * 1024 * 1024
_READ_BYTES = 64 * 1024
#: Asked for by nobody, but kinder than asking again at once.
_PAUSE_AFTER_TROUBLE_S = 10.0
logging.getLogger("urllib3.connectionpool").setLevel(logging.WARNING)
log = logging.getLogger(__name__)
P = ParamSpec("P")


class Declined(Exception):  # noqa: N818 - it is no error of ours: the other side said no, and the page says how
    """The other side refused or did not answer; `page` is what `search` returns."""

    def __init__(self, outcome: Outcome, detail: str, retry_after_s: float = 0.0) -> None:
        super().__init__(detail)
        self.page = Page((), outcome, None, (), detail, retry_after_s)


def typed(search: Callable[P, Page]) -> Callable[P, Page]:
    """Make `search` end in a page: a :class:`Declined` becomes the one it stands for, and an answer that is not of the form its
    adapter was written for becomes LAYOUT_CHANGED.
    """

    @functools.wraps(search)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Page:
        try:
            return search(*args, **kwargs)
        except Declined as declined:
            return declined.page
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            log.warning("an answer has a form that is not known (%s); --debug shows where", error)
            log.debug("while reading it", exc_info=True)
            return Page((), Outcome.LAYOUT_CHANGED, None, (), f"the answer has a form that is not known ({type(error).__name__}: {error})")

    return wrapped


@dataclass(frozen=True)
class Answer:
    """A whole answer; `url` is host and path, safe to show."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", errors="replace")

    @property
    def retry_after_s(self) -> float:
        """What `Retry-After` asks for, in seconds; 0 where it is absent or makes no sense."""
        return retry_after_s(self.headers.get("Retry-After", ""))

    def document(self) -> Any:
        """The body as JSON, None where it is not JSON."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


def retry_after_s(value: str) -> float:
    """Seconds from a `Retry-After` header, which is a number of seconds or a date (RFC 9110, 10.2.3).

    >>> retry_after_s("120"), retry_after_s(""), retry_after_s("Fri, 31 Dec 1999 23:59:59 GMT")
    (120.0, 0.0, 0.0)
    """
    if value.strip().isdigit():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError):
        return 0.0
    return max(0.0, moment - time.time())


def said(document: Any) -> str:
    """What an error document says, in whichever of the usual places it says it."""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], dict):
        parts = [str(errors[0].get(key) or "") for key in ("code", "subCode", "parameter", "value", "message", "moreDetails")]
        return " ".join(part for part in parts if part)
    for key in ("detail", "message", "error", "info"):
        value = document.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, dict):
            return said(value)
    return ""


class Client:
    """A session of one source. `interval_s` is the least time between two of its requests."""

    def __init__(self, source: str, settings: SourceSettings, interval_s: float = 0.0) -> None:
        self.source, self.settings = source, settings
        self._interval_s = interval_s if settings.polite else 0.0
        self._next_at = 0.0
        self._session = requests.Session()
        self._session.headers.update({"User-Agent": user_agent(settings.contact), "Accept-Language": f"{settings.market},en;q=0.8"})

    def close(self) -> None:
        self._session.close()

    def get(self, url: str, parameters: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        """GET; the answer whatever its status.

        Raises:
            Declined: no answer, or one without end.
        """
        return self._ask("GET", url, params=parameters, headers=headers)

    def post(self, url: str, form: Mapping[str, str]) -> Answer:
        """POST a form; the answer whatever its status.

        Raises:
            Declined: no answer, or one without end.
        """
        return self._ask("POST", url, data=form)

    def document(self, url: str, parameters: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        """GET a JSON object.

        Raises:
            Declined: BLOCKED where the status or an empty body says no, LAYOUT_CHANGED where it is no JSON object.
        """
        return self.parsed(self.get(url, parameters, headers))

    def parsed(self, answer: Answer) -> dict[str, Any]:
        """The JSON object of an answer.

        Raises:
            Declined: as `document` does.
        """
        self.refuse(answer)
        document = answer.document()
        if not isinstance(document, dict):
            raise Declined(Outcome.LAYOUT_CHANGED, f"{answer.url} answered with something that is no JSON object")
        return document

    def refuse(self, answer: Answer) -> None:
        """Raise where a status or an empty body means no.

        Raises:
            Declined: BLOCKED, with what the other side said and how long it asks to wait.
        """
        if answer.status < 300:
            if not answer.body.strip():
                raise Declined(Outcome.BLOCKED, f"{answer.url} answered {answer.status} with an empty body, as for suspected abuse")
            return
        words = said(answer.document()) or _STATUS.get(answer.status, "")
        if answer.status == 401:
            words = f"{words or 'not authorised'}; check the key in {key_variable(self.source)}"
        if 300 <= answer.status < 400:
            words = "it redirects, which a search client does not follow; set the base URL to where it leads"
        wait_s = answer.retry_after_s or (_PAUSE_AFTER_TROUBLE_S if answer.status == 429 or answer.status >= 500 else 0.0)
        raise Declined(Outcome.BLOCKED, f"{answer.url} answered {answer.status}: {words}".rstrip(": "), wait_s)

    def lines(self, url: str) -> Iterator[str]:
        """GET a text of any size, line by line.

        Raises:
            Declined: it was refused, or broke off.
        """
        with self._open("GET", url) as (response, shown):
            if response.status_code != 200:
                self.refuse(Answer(response.status_code, response.headers, response.raw.read(_READ_BYTES, decode_content=True), shown))
            rest = b""
            while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (f"{line.decode('utf-8', errors='replace')}\n" for line in whole)
            if rest:
                yield rest.decode("utf-8", errors="replace")

    def _ask(self, method: str, url: str, **options: Any) -> Answer:
        deadline = time.monotonic() + self.settings.timeout_s
        with self._open(method, url, **options) as (response, shown):
            body = bytearray()
            # read1 gives what has arrived; iter_content would wait for a full chunk from a server that trickles.
            while chunk := response.raw.read1(_READ_BYTES, decode_content=True):
                body += chunk
                if len(body) > MAX_BYTES or time.monotonic() > deadline:
                    raise Declined(Outcome.BLOCKED, f"{shown} answered without end", _PAUSE_AFTER_TROUBLE_S)
            return Answer(response.status_code, response.headers, bytes(body), shown)

    @contextlib.contextmanager
    def _open(self, method: str, url: str, **options: Any) -> Iterator[tuple[requests.Response, str]]:
        """A response whose body has not been read, and its address as it may be shown."""
        parts = urlsplit(url)
        shown = f"{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._pause()
        log.debug("%s %s", method, shown)
        try:
            with self._session.request(method, url, timeout=self.settings.timeout_s, allow_redirects=False, stream=True, **options) as got:
                yield got, shown
        except (requests.exceptions.InvalidURL, requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema):
            raise Declined(Outcome.BLOCKED, f"the base URL of {self.source} leads to '{shown}', which is no http address") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            # The chain is cut: requests puts the whole URL, with the key in it, into its messages.
            raise Declined(Outcome.BLOCKED, f"no answer from {shown}: {_words(error)}", _PAUSE_AFTER_TROUBLE_S) from None

    def _pause(self) -> None:
        wait_s = self._next_at - time.monotonic()
        if wait_s > 0:
            time.sleep(wait_s)
        self._next_at = time.monotonic() + self._interval_s


_STATUS = {
    403: "forbidden: disabled, or the quota is used up",
    404: "not found; check the base URL",
    410: "gone: it wants https, or has been retired",
    429: "too many requests",
}


def _words(error: Exception) -> str:
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError):
        return "it took too long"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate was not accepted"
    if isinstance(error, urllib3.exceptions.HTTPError):
        return "the connection broke off"
    return "no connection"
