"""No box is lost unseen."""

from __future__ import annotations
from typing import Any
import sys


class Preserve:
    def __init__(self, application: Any, session: Any) -> None:
        self._application = application

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and (scope["method"] == "PATCH" or scope["path"] in ("/graphql", "/event", "/operators/execute")):
            body = b""
            more = True
            while more:
                m = await receive()
                body += m.get("body", b"")
                more = m.get("more_body", False)
            print("TRAFFIC", scope["method"], scope["path"], scope["query_string"], body[:3000], file=sys.stderr, flush=True)
            sent = False

            async def again():
                nonlocal sent
                if not sent:
                    sent = True
                    return {"type": "http.request", "body": body, "more_body": False}
                return await receive()

            async def send2(m):
                if m["type"] == "http.response.start" and scope["method"] == "PATCH":
                    print("STATUS", m["status"], file=sys.stderr, flush=True)
                await send(m)

            await self._application(scope, again, send2)
            return
        await self._application(scope, receive, send)
