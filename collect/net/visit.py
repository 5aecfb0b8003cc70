"""One URL's visit: what its site says before the request (robots.txt, tdmrep.json) and with the answer (status, headers)."""

from __future__ import annotations

from yarl import URL

from collect.net.domains import domain_of_host
from collect.net.fetch import Lost, LostError
from collect.net.robots import RobotsCache, opted_out, tdm_header
from collect.net.throttle import Throttle
from collect.net.wire import Answer
from collect.records import Reason, State

#: What web pages call themselves.
HTML_TYPES = frozenset({"text/html", "application/xhtml+xml"})


class Visit:
    """The two checks of :meth:`collect.net.fetch.Fetcher.fetch` for one URL; `words` is what the site said, for the record."""

    def __init__(self, robots: RobotsCache | None, throttle: Throttle) -> None:
        self._robots, self._throttle = robots, throttle
        self._reserved = False
        self.words = ""

    async def check(self, url: URL) -> None:
        """Refuse a hop that robots.txt forbids.

        Raises:
            LostError: it does.
        """
        if self._robots is None:
            self.words = "not asked (impolite)"
            return
        rules = await self._robots.rules(url)
        delay_s = rules.crawl_delay_s()
        if delay_s:
            self._throttle.crawl_delay(domain_of_host(url.host or ""), delay_s)
        refusal = rules.refusal(str(url))
        if refusal:
            self.words = refusal.detail
            raise LostError(refusal)
        # A reservation where the URL stands holds wherever it leads; only a header with the image itself lifts it.
        self._reserved = self._reserved or rules.reserved(url.path)
        self.words = "allowed"

    def wanted(self, answer: Answer) -> None:
        """Refuse an answer that is no image or whose headers opt out, before its body is read.

        Raises:
            LostError: it is or they do.
        """
        if answer.status >= 400:
            raise LostError(Lost(State.GONE, Reason.HTTP_4XX, f"HTTP {answer.status}"))
        if answer.status != 200:
            raise LostError(Lost(State.GONE, Reason.CONNECTION, f"HTTP {answer.status} brings no image"))
        said = tdm_header(answer.headers)
        word = opted_out(answer.headers) or ("tdm-reservation" if (self._reserved if said is None else said) else "")
        if word:
            self.words = word
            raise LostError(Lost(State.DENIED, Reason.OPT_OUT, f"the site opts out ({word})"))
        if answer.content_type in HTML_TYPES:
            raise LostError(Lost(State.INVALID, Reason.HTML, "a web page, not an image"))
