"""report.html: one file with everything a person asks of a run, readable in light and dark, without a network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from annotate.coco import Document
from collect.files import write_atomic
from train.judging import charts, diagnosis, errors_view, intervals
from train.judging.charts import Axis, Series
from train.judging.contact_sheet import sheets
from train.judging.error_kinds import error_kinds
from train.judging.evaluate import Evaluation, evaluate
from train.judging.inputs import read_detections
from train.judging.run_files import RunFiles, open_run
from train.judging.voc import VocAp, voc_ap

RESAMPLES = 1000
_MOST_CURVES = 8
#: What metrics.json holds besides facts: the numbers that the rest of the page shows.
_RESULTS = {"train", "val", "test", "stats", "per_category", "intervals", "categories"}


def write(run_path: Path, split: str = "", *, resamples: int = RESAMPLES) -> Path:
    """Write `report.html`, and `errors-<split>.json` for the review, into the run's folder; returns the page's path.

    `split` "" = the first of test, val, train that has images. Reads config.json, metrics.csv, metrics.json,
    `detections-<split>.json` and the release with its images.

    Raises:
        NotFoundError: no run, no release, or no detections for the split.
        CorruptError, UsageError: as :func:`train.judging.evaluate.evaluate`.
    """
    run = open_run(run_path)
    split = run.choose_split(split)
    document = run.ground_truth(split)
    evaluation = evaluate(document, read_detections(run.detections(split)))
    errors_view.write(run.path, split, evaluation, document)
    target = run.path / "report.html"
    write_atomic(target, page("report.html", _content(run, split, document, evaluation, resamples)))
    return target


def page(template: str, content: Mapping[str, Any]) -> str:
    """A template beside this module, filled."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.get_template(template).render(content)


def agrees_with_pycocotools(evaluation: Evaluation) -> bool:
    """Whether pycocotools itself gives the same twelve numbers, to the last bit."""
    if evaluation.engine == "pycocotools":
        return True
    return evaluate(evaluation.truth, evaluation.found, engine="pycocotools").stats == evaluation.stats


def _content(run: RunFiles, split: str, document: Document, evaluation: Evaluation, resamples: int) -> dict[str, Any]:
    bounds = intervals.of_evaluation(evaluation, resamples=resamples)
    threshold = evaluation.best.threshold if evaluation.best.threshold is not None else 0.5
    pictures = sheets(evaluation, document, run.images, threshold)
    agrees = agrees_with_pycocotools(evaluation)
    reliability = diagnosis.calibration(evaluation.matches50)
    sheet_words = f"Detections with a score of at least {threshold:.2f}."
    return {
        "run": run.name,
        "dataset": run.config["dataset"],
        "release": run.config["release"],
        "detector": run.config.get("detector", "a detector"),
        "split": split,
        "images": len(evaluation.truth.image_ids_I),
        "boxes": int((~evaluation.truth.iscrowd_A).sum()),
        "detections": len(evaluation.found),
        "warnings": list(_warnings(evaluation, agrees, pictures.unreadable)),
        "cards": _cards(evaluation, bounds),
        "resamples": resamples,
        "cross_check": "pycocotools gives the same twelve numbers, to the last digit." if agrees else "",
        "curves": _learning(run.history()),
        "precision": _precision(evaluation),
        "classes": list(_classes(evaluation, bounds, voc_ap(evaluation.truth, evaluation.found))),
        "sizes": [[row["name"], row["boxes"], _number(row["ap"]), _number(row["ar"])] for row in diagnosis.by_size(evaluation)],
        "counts": _group_rows(diagnosis.by_count(evaluation)),
        "slices": [
            {"name": key, "rows": _group_rows(rows)}
            for key in ("source", "domain", "query")
            if (rows := diagnosis.slices(evaluation, document["images"], key))
        ],
        "threshold": f"{threshold:.3f}",
        "errors": _errors(evaluation),
        "reliability": charts.reliability(
            reliability.score_B.tolist(), reliability.right_B.tolist(), reliability.count_B.tolist(), "Do scores mean what they say?"
        ),
        "ece": None if reliability.ece is None else f"{reliability.ece:.3f}",
        "matrix": _matrix(evaluation, threshold),
        "sheets": [
            {"name": "Images with the most errors", "words": sheet_words, "pictures": pictures.worst},
            {"name": "Images without an error", "words": "Those with the most boxes first.", "pictures": pictures.best},
        ],
        "facts": list(_facts(run)),
    }


def _warnings(evaluation: Evaluation, agrees: bool, unreadable: Sequence[str]) -> Iterator[str]:
    if evaluation.stats[0] < 0:
        yield "There is no box in this ground truth, so precision and recall have no meaning; pycocotools writes −1."
    if not len(evaluation.found):
        yield "The detector found nothing at all."
    if not agrees:
        yield f"pycocotools does not give the numbers of {evaluation.engine}, which stand here: please report this."
    if unreadable:
        yield f"{len(unreadable)} images could not be read for the pictures below: {', '.join(unreadable[:5])}"


def _cards(evaluation: Evaluation, bounds: intervals.Intervals) -> list[dict[str, str]]:
    stats, best = evaluation.stats, evaluation.best
    ends = {0: _ends(bounds.ap), 1: _ends(bounds.ap50)}
    cards = [
        {"name": name, "value": _number(stats[place]), "words": ends.get(place, words)}
        for name, place, words in (("AP", 0, ""), ("AP50", 1, ""), ("AP75", 2, "at an IoU of .75"), ("AR", 8, "recall with 100 detections"))
    ]
    words = f"precision {best.precision:.2f}, recall {best.recall:.2f}" if best.precision is not None and best.recall is not None else ""
    at = f" at score {best.threshold:.2f}" if best.threshold is not None else ""
    cards.append({"name": f"best F1{at}", "value": _number(best.f1), "words": words})
    return cards


def _learning(history: Sequence[Mapping[str, float]]) -> list[Markup]:
    """Loss and accuracy by epoch, from whatever columns metrics.csv has."""
    columns = list(dict.fromkeys(key for row in history for key in row))
    panels = (
        ("Loss", [name for name in columns if "loss" in name.lower()], "loss", None),
        ("Accuracy on val", [name for name in columns if re.fullmatch(r"(val_)?m?AP(50|75)?", name, re.IGNORECASE)], "AP", 1.0),
    )
    epochs = [row.get("epoch", float(place)) for place, row in enumerate(history, 1)]
    drawn = []
    for title, names, label, high in panels:
        series = [Series(name, epochs, [row.get(name, math.nan) for row in history], marked=high is not None) for name in names]
        drawn.append(charts.lines(series, Axis("epoch", whole=True), Axis(label, 0, high), title))
    return [chart for chart in drawn if chart]


def _precision(evaluation: Evaluation) -> list[Markup]:
    recalls = [place / 100 for place in range(101)]
    x, y = Axis("recall", 0, 1), Axis("precision", 0, 1)
    over = [
        Series(f"IoU {iou:.2f}", recalls, _told(evaluation.precision_at(iou).tolist()))
        for iou in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9)
        if evaluation.stats[0] >= 0
    ]
    ranked = sorted((entry for entry in evaluation.per_category if entry["boxes"]), key=lambda entry: -entry["boxes"])[:_MOST_CURVES]
    places = {entry["id"]: place for place, entry in enumerate(evaluation.per_category)}
    by_class = [
        Series(f"{entry['name']} {entry['ap50']:.2f}", recalls, _told(evaluation.precision_at(0.5, places[entry["id"]]).tolist()))
        for entry in ranked
    ]
    drawn = [charts.lines(over, x, y, "All classes"), charts.lines(by_class, x, y, "By class at an IoU of .5, with AP50")]
    return [chart for chart in drawn if chart]


def _classes(evaluation: Evaluation, bounds: intervals.Intervals, voc: VocAp) -> Iterator[list[object]]:
    for entry in evaluation.per_category:
        yield [
            entry["name"],
            entry["boxes"],
            _number(entry["ap"]),
            _ends(bounds.per_category[entry["id"]]),
            _number(entry["ap50"]),
            _number(entry["ap75"]),
            _number(entry["ar"]),
            _number(voc.every_point[entry["id"]]),
            *(_number(entry[key]) for key in ("f1", "threshold", "precision", "recall")),
        ]


def _group_rows(rows: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    return [
        [row["name"], row["images"], row["boxes"], row["detections"], _number(row["ap"]), _number(row["ap50"]), _number(row["f1"])]
        for row in rows
    ]


def _errors(evaluation: Evaluation) -> Markup:
    kinds = error_kinds(evaluation.truth, evaluation.found, evaluation.matches50)
    names = {"Cls": "class", "Loc": "place", "Both": "both", "Dupe": "twice", "Bkg": "backgr.", "Miss": "missed"}
    rows = [(names[kind], kinds.delta_ap50[kind], f"+{100 * kinds.delta_ap50[kind]:.1f} ({kinds.counts[kind]})") for kind in names]
    return charts.bars(rows, "AP50 points lost to each kind of error (how many)")


def _matrix(evaluation: Evaluation, threshold: float) -> dict[str, Any]:
    counts = diagnosis.confusion(evaluation.truth, evaluation.found, threshold).counts_KK
    names = [*evaluation.truth.names_K, "background"]
    rows = []
    for name, line in zip(names, counts.tolist(), strict=True):
        total = sum(line) or 1
        rows.append({"name": name, "cells": [{"count": count, "share": f"{0.75 * count / total:.2f}"} for count in line]})
    return {"names": names, "rows": rows}


def _facts(run: RunFiles) -> Iterator[dict[str, Any]]:
    """What the run took, by metrics.json, and what it was asked for, by config.json."""
    settings = _plain_facts(run.config)
    took = {key: value for key, value in _plain_facts(run.metrics()).items() if settings.get(key) != value}
    yield {"name": "What it took", "facts": took}
    yield {"name": "What it was asked for", "facts": settings}


def _plain_facts(document: Mapping[str, Any]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for key, value in document.items():
        if isinstance(value, Mapping) and key not in _RESULTS:
            facts |= {f"{key} {inner}": each for inner, each in _plain_facts(value).items()}
        elif isinstance(value, int | float | str) and value != "" and key not in _RESULTS:
            facts[key.replace("_", " ")] = _plain(value)
    return facts


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}" if value >= 1 else f"{value:.6g}"


def _told(values: Sequence[float]) -> list[float]:
    return [value if value >= 0 else math.nan for value in values]


def _number(value: float | None) -> str:
    return "–" if value is None or value < 0 else f"{value:.3f}"


def _ends(interval: intervals.Interval) -> str:
    if interval.low is None or interval.high is None or interval.point < 0:
        return "–"
    return f"{interval.low:.3f} – {interval.high:.3f}"
