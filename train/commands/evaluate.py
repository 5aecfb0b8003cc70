"""`boxwright evaluate`: COCO mAP of a run, or of any two COCO files."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collect.console import Console
from collect.errors import UsageError

if TYPE_CHECKING:
    from annotate.coco import Document
    from train.judging.evaluate import Evaluation
    from train.judging.intervals import Intervals
    from train.judging.run_files import RunFiles


class Evaluate:
    """Prints what pycocotools prints, and per class; the arithmetic is :mod:`train.judging.evaluate`'s."""

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("run", nargs="?", help="a run (its name, NAME/RUN, NAME/champion or its folder)")
        parser.add_argument("--split", default="", help="which split of the run's release (default: test, else val, else train)")
        parser.add_argument("--ground-truth", type=Path, metavar="GT.json", help="a COCO file, instead of a run")
        parser.add_argument(
            "--detections", type=Path, metavar="DT.json", help="COCO results for it: [{image_id, category_id, bbox, score}]"
        )
        parser.add_argument("--engine", default="hotcoco", help="hotcoco or pycocotools (default: hotcoco)")
        parser.add_argument("--resamples", type=int, default=1000, help="of the bootstrap that gives the intervals; 0 = none")
        parser.add_argument("--no-cross-check", action="store_true", help="do not ask pycocotools too (it takes fifty times as long)")
        parser.add_argument(
            "--tiles",
            type=int,
            default=0,
            metavar="PX",
            help="detect anew, also on tiles of this side as `detect --tiles`; nothing is kept",
        )
        parser.add_argument("--device", default="auto", help="where to detect when the run has no detections for the split yet")
        parser.add_argument("--report", action="store_true", help="also write the run's report.html anew")

    def run(self, arguments: Namespace, console: Console) -> dict[str, Any] | None:
        from train.judging.evaluate import evaluate_files

        if arguments.resamples < 0:
            raise UsageError(f"--resamples {arguments.resamples}: at least 1, or 0 for none")
        if arguments.tiles and (arguments.report or not arguments.run):
            raise UsageError("--tiles detects with a RUN and keeps nothing: give a RUN, and no --report")
        if arguments.run:
            return self._of_run(arguments, console)
        if not (arguments.ground_truth and arguments.detections):
            raise UsageError("say what to evaluate: a RUN, or both --ground-truth GT.json and --detections DT.json")
        evaluation = evaluate_files(arguments.ground_truth, arguments.detections, engine=arguments.engine)
        return _result(evaluation, arguments, console)

    def _of_run(self, arguments: Namespace, console: Console) -> dict[str, Any]:
        import orjson

        from collect.files import write_atomic
        from train.judging import errors_view, report
        from train.judging.evaluate import evaluate
        from train.judging.inputs import read_detections
        from train.judging.run_files import open_run

        if arguments.ground_truth or arguments.detections:
            raise UsageError("give either a RUN, or --ground-truth and --detections, not both")
        run = open_run(console.workspace.run_path(arguments.run))
        split = run.choose_split(arguments.split)
        if arguments.tiles:
            return self._tiled(run, split, arguments, console)
        if not run.detections(split).is_file():
            if console.dry_run:
                console.out(f"would detect on {split} with {run.name}, write {run.detections(split).name}, and judge it")
                return {"run": run.name, "split": split, "would_detect": True}
            console.say(f"{run.name} has no detections on {split} yet")
            write_atomic(run.detections(split), orjson.dumps(_detect(run, split, arguments, console)))
        document = run.ground_truth(split)
        _head(run, split, document, console)
        evaluation = evaluate(document, read_detections(run.detections(split)), engine=arguments.engine)
        result = {"run": run.name, "split": split, **_result(evaluation, arguments, console)}
        if not console.dry_run:
            result["errors"] = str(errors_view.write(run.path, split, evaluation, document))
            if arguments.report:
                result["report"] = str(report.write(run.path, split))
                console.out(f"report: {result['report']}")
        return result

    def _tiled(self, run: RunFiles, split: str, arguments: Namespace, console: Console) -> dict[str, Any]:
        """What tiles would change: the detections of the run, the gate and the report stay those of the whole images."""
        from train.judging.evaluate import evaluate

        if console.dry_run:
            console.out(f"would detect on {split} with {run.name} and tiles of {arguments.tiles} px, and judge it")
            return {"run": run.name, "split": split, "would_detect": True}
        document = run.ground_truth(split)
        found = _detect(run, split, arguments, console)
        _head(run, split, document, console, f", in tiles of {arguments.tiles} px")
        evaluation = evaluate(document, found, engine=arguments.engine)
        return {"run": run.name, "split": split, "tiles": arguments.tiles, **_result(evaluation, arguments, console)}


def _head(run: RunFiles, split: str, document: Document, console: Console, how: str = "") -> None:
    """What the numbers below it are of: without a val split, `evaluate` judges another one than a user may think."""
    own = " (which it was trained on: no measure of other images)" if split == "train" else ""
    console.out(f"{run.name} on {split}{own}{how}: {len(document['images']):,} images, {len(document['annotations']):,} boxes")


def _detect(run: RunFiles, split: str, arguments: Namespace, console: Console) -> list[dict[str, Any]]:
    """COCO results of a split with the run's best weights."""
    from annotate import coco
    from train.serving.predictor import Predictor, detect_split
    from train.serving.tiles import Tiling

    tiling = Tiling(arguments.tiles) if arguments.tiles else None
    arrays = coco.arrays(run.ground_truth(split))
    console.say(f"looking at {len(arrays.image_ids_I)} images")
    found, failures = detect_split(Predictor.from_run(run.path, arguments.device, tiling), arrays, run.images)
    for failure in failures:
        console.say(f"not judged, since it cannot be read: {failure}")
    return found


def _result(evaluation: Evaluation, arguments: Namespace, console: Console) -> dict[str, Any]:
    from train.judging import intervals
    from train.judging.report import agrees_with_pycocotools

    resamples: int = arguments.resamples
    bounds = intervals.of_evaluation(evaluation, resamples=resamples) if resamples else None
    agrees = None if arguments.no_cross_check else agrees_with_pycocotools(evaluation)
    for line in summary_lines(evaluation):
        console.out(line)
    headings = ["class", "boxes", "AP", "95 %", "AP50", "AP75", "F1", "at score"]
    console.table(headings, _rows(evaluation, bounds))
    if bounds and bounds.ap.low is not None and bounds.ap.high is not None:
        console.out(
            f"AP {bounds.ap.point:.3f}, 95 % interval {bounds.ap.low:.3f} to {bounds.ap.high:.3f} ({resamples} resamples of the images)"
        )
    if evaluation.stats[0] < 0:
        console.say("there is no box in the ground truth, so nothing can be found or missed: pycocotools writes -1 for that")
    elif not len(evaluation.found):
        console.say("there is no detection at all, so AP is 0")
    if agrees is False:
        console.say(
            f"pycocotools does not give the same numbers as {evaluation.engine}; trust `--engine pycocotools`, and please report this"
        )
    document = evaluation.to_json()
    document |= _diagnosis(evaluation)
    document["cross_check"] = {"engine": "pycocotools", "agrees": agrees}
    document["intervals"] = bounds.to_json() if bounds else None
    if bounds:
        for entry in document["per_category"]:
            interval = bounds.per_category[entry["id"]]
            entry |= {"ap_low": interval.low, "ap_high": interval.high}
    return document


def _diagnosis(evaluation: Evaluation) -> dict[str, Any]:
    """What the report shows besides, for scripts: VOC's AP at IoU .5 (inclusive pixels), TIDE's kinds, calibration."""
    from train.judging.diagnosis import by_size, calibration
    from train.judging.error_kinds import error_kinds
    from train.judging.voc import voc_ap

    voc = voc_ap(evaluation.truth, evaluation.found)
    kinds = error_kinds(evaluation.truth, evaluation.found, evaluation.matches50)
    return {
        "voc_ap50": {"every_point": voc.mean_every_point, "eleven_point": voc.mean_eleven_point},
        "error_kinds": {kind: {"count": kinds.counts[kind], "delta_ap50": kinds.delta_ap50[kind]} for kind in kinds.counts},
        "calibration_error": calibration(evaluation.matches50).ece,
        "per_size": by_size(evaluation),
    }


def summary_lines(evaluation: Evaluation) -> Iterator[str]:
    """The twelve lines as pycocotools prints them."""
    from train.judging.evaluate import STATS

    limits = {0: evaluation.curves.max_dets_M[0], 1: 10, -1: evaluation.curves.max_dets_M[-1]}
    for value, (_, of_precision, threshold, area, limit) in zip(evaluation.stats, STATS, strict=True):
        title = "Average Precision  (AP)" if of_precision else "Average Recall     (AR)"
        iou = "0.50:0.95" if threshold is None else f"{threshold:0.2f}"
        yield f" {title} @[ IoU={iou:<9} | area={area:>6s} | maxDets={limits[limit]:>3d} ] = {value:0.3f}"


def _rows(evaluation: Evaluation, bounds: Intervals | None) -> Iterator[list[object]]:
    for entry in evaluation.per_category:
        interval = bounds.per_category[entry["id"]] if bounds else None
        told = interval is not None and interval.low is not None and interval.high is not None and entry["ap"] >= 0
        numbers = [entry[key] for key in ("ap50", "ap75", "f1", "threshold")]
        yield [
            entry["name"],
            entry["boxes"],
            _cell(entry["ap"]),
            f"{interval.low:.2f}–{interval.high:.2f}" if told and interval else "–",
            *map(_cell, numbers),
        ]


def _cell(value: float | None) -> object:
    return "–" if value is None or value < 0 else value


EVALUATE = Evaluate()
