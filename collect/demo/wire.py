"""The formats in which the demo's site answers: Bing Image Search v7, Bing Images' result page, Openverse.

The field names are the providers' own (Microsoft's bing-docs; api.openverse.org's schema; a saved result page of Bing).
A Bing gateway states a licence in `creativeCommons`; an item without one says nothing.
"""

from __future__ import annotations

import hashlib
import html
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from collect.demo.catalogue import Offer, stem
from collect.licenses import family

_KINDS = {"CC-BY": "by", "CC-BY-SA": "by-sa", "CC-BY-NC": "by-nc", "CC0": "cc0", "PDM": "pdm"}
#: Bing's `license` values that leave something out -> families they let through.
_BING_LICENCES = {
    "Public": {"CC0", "PDM"},
    "ModifyCommercially": {"CC0", "PDM", "CC-BY", "CC-BY-SA"},
    "ShareCommercially": {"CC0", "PDM", "CC-BY", "CC-BY-SA", "CC-BY-ND"},
    "Modify": {"CC0", "PDM", "CC-BY", "CC-BY-SA", "CC-BY-NC", "CC-BY-NC-SA"},
}
OPENVERSE_LIMIT = 240
OPENVERSE_PAGE = 20


def matching(offers: Sequence[Offer], query: str, source: str) -> list[Offer]:
    """What a search finds: offers that share a word with the query, those that share more first."""
    wanted = {stem(word) for word in query.lower().replace("-", " ").split()}
    hits = [(len(wanted & offer.words), offer) for offer in offers if source in offer.listed]
    return [offer for number, offer in sorted(hits, key=lambda hit: (-hit[0], hit[1].path[-8:], hit[1].path)) if number]


def suggestions(offers: Sequence[Offer], query: str) -> list[str]:
    """Neighbouring words, the most frequent first."""
    asked = {stem(word) for word in query.split()}
    counts = Counter(tag for offer in offers for tag in offer.tags[:2] if stem(tag) not in asked)
    return [tag for tag, _ in counts.most_common(6)]


def bing_api(base: str, offers: Sequence[Offer], parameters: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Status and body of `/v7.0/images/search`."""
    query = parameters.get("q", "")
    if not query:
        return 400, bing_error("InvalidRequest", "ParameterMissing", "Required parameter is missing.", "q")
    try:
        count, offset = min(int(parameters.get("count", "35")), 150), int(parameters.get("offset", "0"))
    except ValueError:
        return 400, bing_error("InvalidRequest", "ParameterInvalidValue", "Parameter has invalid value.", "count")
    allowed = _BING_LICENCES.get(parameters.get("license", "Any"))
    # Bing's filter is known to let pass what states nothing.
    all_hits = matching(offers, query, "bing-api")
    hits = [offer for offer in all_hits if allowed is None or not offer.licence.spdx or family(offer.licence.spdx) in allowed]
    part = hits[offset : offset + count]
    neighbours = suggestions(all_hits, query)
    return 200, {
        "_type": "Images",
        "readLink": f"{base}/api/v7/images/search?q={query}",
        "queryContext": {"originalQuery": query},
        "totalEstimatedMatches": len(hits),
        "currentOffset": offset,
        "nextOffset": offset + len(part),
        "value": [_bing_item(base, offer) for offer in part],
        "queryExpansions": [_bing_query(base, text) for text in neighbours[:3]],
        "relatedSearches": [_bing_query(base, text) for text in neighbours[3:]],
        "pivotSuggestions": [],
    }


def bing_error(code: str, sub_code: str, message: str, parameter: str = "") -> dict[str, Any]:
    """Bing's error body."""
    return {"_type": "ErrorResponse", "errors": [{"code": code, "subCode": sub_code, "message": message, "parameter": parameter}]}


def _bing_query(base: str, text: str) -> dict[str, Any]:
    return {
        "text": text,
        "displayText": text,
        "webSearchUrl": f"{base}/images/search?q={text}",
        "searchLink": f"{base}/v7.0/images/search?q={text}",
    }


def _bing_item(base: str, offer: Offer) -> dict[str, Any]:
    width, height = offer.size_wh
    item = {
        "name": offer.title,
        "contentUrl": base + offer.path,
        "thumbnailUrl": f"{base}/th?id={offer.path}",
        "hostPageUrl": base + offer.page,
        "datePublished": "2026-05-01T00:00:00.0000000Z",
        "isFamilyFriendly": True,
        "contentSize": f"{len(offer.body)} B",
        "encodingFormat": "jpeg",
        "width": width,
        "height": height,
        "imageId": _identity(offer).upper(),
    }
    if offer.licence.spdx:
        item["creativeCommons"] = _licence_name(offer.licence.spdx)
    return item


def _licence_name(spdx: str) -> str:
    """A licence as people write it: `CC BY-SA 4.0`, `CC0 1.0`, `Public Domain Mark 1.0`."""
    kind, _, version = spdx.rpartition("-")
    return f"Public Domain Mark {version}" if kind == "PDM" else f"{kind.replace('CC-', 'CC ')} {version}"


def bing_fragment(base: str, offers: Sequence[Offer], parameters: dict[str, str]) -> str:
    """`/images/async`: a list of `a.iusc`, each with a JSON `m`; empty past the end."""
    first, count = _number(parameters, "first", 1), _number(parameters, "count", 35)
    part = matching(offers, parameters.get("q", ""), "bing-images")[max(first - 1, 0) :][:count]
    items = "".join(f"<li>{_iusc(base, offer)}</li>" for offer in part)
    return f'<ul class="dgControl_list">{items}</ul>{_related(offers, parameters)}' if items else ""


def _related(offers: Sequence[Offer], parameters: dict[str, str]) -> str:
    hits = matching(offers, parameters.get("q", ""), "bing-images")
    links = [
        f'<a class="rsu" href="/images/search?{urlencode({"q": text})}">{text}</a>' for text in suggestions(hits, parameters.get("q", ""))
    ]
    return f'<div class="rsu_container">{" ".join(links)}</div>'


def bing_page(base: str, offers: Sequence[Offer], parameters: dict[str, str]) -> str:
    """`/images/search`: the first results, a consent banner, a "see more" button, and a script that loads the rest."""
    query = html.escape(parameters.get("q", ""), quote=True)
    first = bing_fragment(base, offers, {**parameters, "first": "1", "count": "35"})
    return _BING_PAGE.replace("QUERY", query).replace("FIRST", first or f"<h2>There are no results for {query}</h2>")


def _iusc(base: str, offer: Offer) -> str:
    facts = {
        "purl": base + offer.page,
        "murl": base + offer.path,
        "turl": f"{base}/th?id={offer.path}",
        "md5": hashlib.md5(offer.body, usedforsecurity=False).hexdigest(),
        "t": offer.title,
        "mid": _identity(offer).upper(),
        "desc": offer.title,
    }
    width, height = offer.size_wh
    detail = "/images/search?" + urlencode({"view": "detailV2", "mediaurl": base + offer.path, "exph": height, "expw": width})
    return (
        f'<div class="iuscp"><div class="imgpt"><a class="iusc" href="{html.escape(detail, quote=True)}"'
        f' m="{html.escape(json.dumps(facts), quote=True)}">'
        f'<img class="mimg" src="/th?id={offer.path}" alt="{html.escape(offer.title, quote=True)}" width="120" loading="lazy"></a>'
        f'<div class="img_info hon"><span class="nowrap">{width}&#215;{height}</span></div></div></div>'
    )


def openverse(base: str, offers: Sequence[Offer], parameters: dict[str, str]) -> tuple[int, dict[str, Any]]:
    """Status and body of `/v1/images/`, as an anonymous client gets it."""
    page, size = _number(parameters, "page", 1), _number(parameters, "page_size", OPENVERSE_PAGE)
    if size > OPENVERSE_PAGE:
        return 401, {"detail": f"Page_size must be between 1 & {OPENVERSE_PAGE} for unauthenticated requests."}
    kinds = set(filter(None, parameters.get("license", "").split(",")))
    hits = [
        offer
        for offer in matching(offers, parameters.get("q", ""), "openverse")
        if offer.licence.spdx and (not kinds or _KINDS.get(family(offer.licence.spdx)) in kinds)
    ][:OPENVERSE_LIMIT]
    pages = -(-len(hits) // size) if size else 0
    if page < 1 or (page > pages and page > 1):
        return 404, {"detail": "Invalid page."}
    return 200, {
        "result_count": len(hits),
        "page_count": pages,
        "page_size": size,
        "page": page,
        "results": [_openverse_item(base, offer) for offer in hits[(page - 1) * size : page * size]],
        "warnings": [],
    }


def openverse_detail(base: str, offers: Sequence[Offer], identity: str) -> tuple[int, dict[str, Any]]:
    """Status and body of `/v1/images/<id>/`."""
    for offer in offers:
        if _identity(offer) == identity.replace("-", ""):
            return 200, _openverse_item(base, offer)
    return 404, {"detail": "Not found."}


def _openverse_item(base: str, offer: Offer) -> dict[str, Any]:
    licence, (width, height) = offer.licence, offer.size_wh
    version = licence.url.rstrip("/").rpartition("/")[2]
    identity = _identity(offer)
    return {
        "id": "-".join((identity[:8], identity[8:12], identity[12:16], identity[16:20], identity[20:])),
        "title": offer.title,
        "url": base + offer.path,
        "foreign_landing_url": base + offer.page,
        "thumbnail": f"{base}/th?id={offer.path}",
        "creator": licence.creator or None,
        "creator_url": f"{base}/people/{licence.creator.lower().replace(' ', '-')}" if licence.creator else None,
        "license": _KINDS.get(family(licence.spdx), ""),
        "license_version": version,
        "license_url": licence.url,
        "provider": "demo",
        "source": "demo",
        "filesize": len(offer.body),
        "filetype": "jpg",
        "width": width,
        "height": height,
        "tags": [{"name": tag, "accuracy": None} for tag in offer.tags],
        "attribution": f'"{offer.title}" by {licence.creator or "an unnamed author"} is licensed under {licence.spdx}. See {licence.url}.',
        "mature": False,
    }


def album_page(title: str, offers: Sequence[Offer]) -> str:
    """A page that shows pictures and states each one's licence."""
    figures = "".join(
        f'<figure><img src="{offer.path}" loading="lazy" width="{offer.size_wh[0]}" height="{offer.size_wh[1]}" '
        f'alt="{html.escape(offer.title, quote=True)}"><figcaption>{html.escape(offer.title)}. {_statement(offer)}</figcaption></figure>'
        for offer in offers
    )
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title><h1>{html.escape(title)}</h1>{figures}'


def _statement(offer: Offer) -> str:
    if not offer.licence.spdx:
        return "All rights reserved?"
    creator = html.escape(offer.licence.creator or "unnamed")
    return f'{creator}, <a rel="license" href="{offer.licence.url}">{offer.licence.spdx}</a>'


def _identity(offer: Offer) -> str:
    return hashlib.sha256(offer.path.encode()).hexdigest()[:32]


def _number(parameters: dict[str, str], name: str, default: int) -> int:
    text = parameters.get(name, "")
    return int(text) if text.isdigit() else default


_BING_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>QUERY - Search Images</title>
<style>
#bnp_container{position:fixed;bottom:0;left:0;right:0;background:#eee;padding:1em}
li{display:inline-block;margin:4px;height:160px}
</style>
</head><body><input name="q" id="sb_form_q" value="QUERY">
<div id="mmComponent_images_1" class="dgControl" data-query="QUERY">FIRST</div>
<a class="btn_seemore" href="#" onclick="more();return false">See more images</a>
<div id="bnp_container">We use cookies. <button id="bnp_btn_accept" onclick="shut()">Accept</button>
<button id="bnp_btn_reject" onclick="shut()">Reject</button></div>
<script>
let loading = false;
function shut() { document.getElementById("bnp_container").remove(); }
async function more() {
  if (loading) return;
  loading = true;
  const box = document.getElementById("mmComponent_images_1");
  const first = box.querySelectorAll("a.iusc").length + 1;
  const answer = await fetch(`/images/async?q=${encodeURIComponent(box.dataset.query)}&async=1&first=${first}&count=35`);
  const text = await answer.text();
  if (text.trim()) { box.insertAdjacentHTML("beforeend", text); } else { document.querySelector(".btn_seemore")?.remove(); }
  loading = false;
}
document.addEventListener("click", event => { if (event.target.closest("a.iusc")) event.preventDefault(); });
addEventListener("scroll", () => { if (innerHeight + scrollY > document.body.offsetHeight - 400) more(); });
</script></body></html>"""
