"""An ASGI wrapper that closes what FiftyOne's server leaves open.

FiftyOne's own server answers any Host and Origin, serves any file of the machine under `/media`, runs operators for
anyone who can reach the port, and asks Google for fonts. Here: only hosts named 127.0.0.1 or localhost, only requests
from our own pages, only with the token that stands in the printed address (kept in a cookie from then on), only images of
the dataset, and a content policy under which the page can talk to nobody else.
"""

from __future__ import annotations

import hmac
import re
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from annotate.review.asgi import Application, Message, Receive, Scope, Send, answer

HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
POLICY = (
    "default-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'; connect-src 'self' blob: data:; "
    "worker-src 'self' blob:; frame-ancestors 'none'; form-action 'self'; base-uri 'self'"
)
# The hidden button turns a filter into a view of labels; editing in such a view deletes the boxes it hides.
_HEAD = b"""<style>[data-cy="action-convert-filters-to-view-stages"]{display:none!important}</style>
<script>
try { localStorage.setItem("fiftyone-enterprise-tooltip-seen", "true") } catch (error) { /* no storage, no popup to close */ }
// The App stores edits every three seconds; a verdict must not wait for that, so keep a handle on its timer.
const bwSetInterval = window.setInterval;
window.setInterval = (act, ms, ...rest) => {
  if (String(act).includes("annotation:persistenceRequested")) { window.__boxwrightSave = act; ms = Math.min(ms, 1000) }
  return bwSetInterval(act, ms, ...rest);
};
</script>"""
_FONTS = re.compile(rb"<link[^>]+https://fonts\.(?:googleapis|gstatic)\.com[^>]*>")


class Guard:
    """Wraps an ASGI application. `images` is the only folder from which `/media` may serve."""

    def __init__(self, application: Application, *, port: int, token: str, images: Path) -> None:
        self._application, self._token, self._images = application, token, images.resolve()
        self._cookie = f"boxwright-{port}"  # cookies do not tell ports apart, two reviews must

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif refusal:
            await answer(send, 403, f"{refusal}\n".encode())
        elif self._given(scope):
            await self._welcome(scope, send)
        else:
            wrap = _Page if _is_page(headers) else _Picture if scope["path"].rstrip("/") == "/media" else None
            await self._application(scope, receive, wrap(send) if wrap else send)

    def _refusal(self, scope: Scope, headers: dict[str, str]) -> str:
        """Why a request is not answered; "" when it is."""
        host = headers.get("host", "")
        if (urlsplit(f"//{host}").hostname or "") not in HOSTS:
            return f"this review answers only on 127.0.0.1 and localhost, not to the host {host!r}; from afar, use an SSH tunnel"
        origin = headers.get("origin")
        if origin is not None and origin not in {f"http://{host}", f"https://{host}"}:
            return f"requests from pages of {origin!r} are refused"
        if headers.get("sec-fetch-site") == "cross-site" and headers.get("sec-fetch-mode") != "navigate":
            return "requests from other sites' pages are refused"
        if not self._known(scope, headers):
            return "the token is missing or wrong; open the address that `boxwright review` printed, with its ?token=…"
        return self._media_refusal(scope)

    def _known(self, scope: Scope, headers: dict[str, str]) -> bool:
        cookies = dict(pair.strip().partition("=")[::2] for pair in headers.get("cookie", "").split(";"))
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return any(
            hmac.compare_digest(given.encode(), self._token.encode())
            for given in (self._given(scope), cookies.get(self._cookie, ""), bearer)
        )

    def _given(self, scope: Scope) -> str:
        query: bytes = scope["query_string"]
        return parse_qs(query.decode("latin-1")).get("token", [""])[0]

    def _media_refusal(self, scope: Scope) -> str:
        if scope["path"].rstrip("/") != "/media":
            return ""
        for name in parse_qs(scope["query_string"].decode("latin-1")).get("filepath", []):
            try:
                inside = Path(name).resolve().is_relative_to(self._images)
            except (OSError, ValueError):
                inside = False
            if not inside:
                return "only images of the dataset are served"
        return ""

    async def _welcome(self, scope: Scope, send: Send) -> None:
        """Put the token into a cookie and take it out of the address."""
        rest = [(name, value) for name, value in parse_qsl(scope["query_string"].decode("latin-1")) if name != "token"]
        location = scope["path"] + (f"?{urlencode(rest)}" if rest else "")
        headers = [
            (b"location", b"/" + location.lstrip("/").encode("latin-1", "replace")),
            (b"set-cookie", f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict".encode()),
            (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-store"),
        ]
        await send({"type": "http.response.start", "status": 303, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _is_page(headers: dict[str, str]) -> bool:
    return "text/html" in headers.get("accept", "")


class _Page:
    """Passes a response on; an HTML page gets our style and policy, and loses its links to font servers."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kinds = [value for name, value in message["headers"] if name.lower() == b"content-type"]
            if kinds and kinds[0].startswith(b"text/html"):
                self._start = message
                return
        if self._start is None or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        page = _FONTS.sub(b"", self._body).replace(b"<head>", b"<head>" + _HEAD, 1)
        dropped = {b"content-length", b"etag", b"last-modified"}
        headers = [(name, value) for name, value in start["headers"] if name.lower() not in dropped]
        headers += [
            (b"content-length", str(len(page)).encode()),
            (b"content-security-policy", POLICY.encode()),
            (b"x-content-type-options", b"nosniff"),
        ]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": page})


class _Picture:
    """Passes a picture on; its file is named by its content, so the browser may keep it as long as it likes."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def __call__(self, message: Message) -> None:
        if message.get("status") == 200:
            message = {**message, "headers": [*message["headers"], (b"cache-control", b"private, max-age=86400, immutable")]}
        await self._send(message)
