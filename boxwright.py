"""The command: `boxwright VERB NAME …`. One table of verbs, each resolved to its stage only when it is called."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, NoReturn, cast

from collect.errors import BoxwrightError, storage_error, unknown_name
from collect.version import VERSION

if TYPE_CHECKING:
    from types import FrameType

    from collect.console import Verb

#: verb -> (where it is implemented, what it does), in the order in which a person meets them.
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("train.commands.demo:DEMO", "the whole loop on a small site of its own, in minutes"),
    "doctor": ("train.commands.doctor:DOCTOR", "what is installed, what is missing, and the command that mends it"),
    "init": ("collect.commands.init:INIT", "write a new, commented dataset.toml"),
    "config": ("collect.commands.config:CONFIG", "show a definition as it is understood, defaults included"),
    "import": ("annotate.commands.importing:IMPORT", "take in images and labels that exist already"),
    "collect": ("collect.commands.collect:COLLECT", "find, download, check and record images"),
    "status": ("train.commands.status:STATUS", "what became of every URL; images, labels, releases, champion"),
    "recheck": ("collect.commands.recheck:RECHECK", "visit sources again; revoke what was taken down or opted out"),
    "propose": ("train.commands.propose:PROPOSE", "let a detector propose boxes for the review"),
    "review": ("annotate.commands.review:REVIEW", "look at, draw and correct boxes in the FiftyOne App"),
    "queue": ("train.commands.queue:QUEUE", "which images to look at next, and why"),
    "audit": ("train.commands.audit:AUDIT", "hunt for label errors with cross-validated predictions"),
    "agreement": ("annotate.commands.agreement:AGREEMENT", "how far reviewers agree, per class"),
    "release": ("annotate.commands.release:RELEASE", "write an immutable COCO release"),
    "splits": ("annotate.commands.splits:SPLITS_VERB", "the balance of the splits, and proof that no group crosses them"),
    "diff": ("annotate.commands.diff:DIFF", "what changed between two releases"),
    "merge": ("annotate.commands.merge:MERGE", "merge the labels of two copies of a dataset, three ways"),
    "undo": ("annotate.commands.undo:UNDO", "append the inverse of label events"),
    "verify": ("annotate.commands.verify:VERIFY", "check every byte of journal, images and releases"),
    "export": ("annotate.commands.export:EXPORT", "write a release in another format"),
    "train": ("train.commands.train:TRAIN", "fine-tune a detector on a release"),
    "evaluate": ("train.commands.evaluate:EVALUATE", "COCO mAP of a run, or of any two COCO files"),
    "compare": ("train.commands.compare:COMPARE", "detectors side by side: accuracy, latency, memory, time"),
    "retrain": ("train.commands.retrain:RETRAIN", "release, warm start, gate: a new champion only on evidence"),
    "onnx": ("train.commands.onnx:ONNX", "a run's detector as ONNX, checked in onnxruntime on real images"),
    "detect": ("train.commands.detect:DETECT", "run a trained detector on pictures, folders, video or camera"),
}


def resolve(verb: str) -> Verb:
    """The implementation of a verb; imports its stage, and nothing else."""
    module, _, attribute = VERBS[verb][0].partition(":")
    return cast("Verb", getattr(importlib.import_module(module), attribute))


class _Parser(argparse.ArgumentParser):
    """An argparse parser whose errors end like all others of ours."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"{self.prog}: {message}\nTry `{self.prog} --help`.\n")
        raise SystemExit(2)


def overview() -> str:
    """The text of `boxwright --help`."""
    width = max(map(len, VERBS))
    lines = [f"  {verb.ljust(width)}  {summary}" for verb, (_, summary) in VERBS.items()]
    return (
        "usage: boxwright VERB NAME … [--json] [--root DIR] [--dry-run] [--quiet]\n\n"
        "From a class name to a dataset release you can defend and a detector with honest numbers, local first.\n\n"
        + "\n".join(lines)
        + "\n\n`boxwright VERB --help` explains a verb. `--version` prints the version.\n"
    )


def parser_for(verb: str, implementation: Verb) -> argparse.ArgumentParser:
    """The parser of one verb: its own arguments and the ones every verb has."""
    parser = _Parser(prog=f"boxwright {verb}", description=VERBS[verb][1], allow_abbrev=False)
    implementation.arguments(parser)
    every = parser.add_argument_group("every verb")
    every.add_argument("--json", action="store_true", dest="as_json", help="one JSON document on stdout; progress and words on stderr")
    every.add_argument("--root", metavar="DIR", help="where datasets/ and runs/ lie (default: BOXWRIGHT_ROOT, else here)")
    every.add_argument("--dry-run", action="store_true", help="say what would be done; write and fetch nothing")
    every.add_argument("--quiet", action="store_true", help="no progress and no words on stderr, errors excepted")
    every.add_argument("--debug", action="store_true", help="log what happens inside, and show tracebacks")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code (see :mod:`collect.errors`)."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in {"-h", "--help", "help"}:
        sys.stdout.write(overview())
        return 0 if words else 2
    if words[0] in {"-V", "--version"}:
        sys.stdout.write(f"boxwright {VERSION}\n")
        return 0
    if words[0] not in VERBS:
        return _fail(unknown_name("verb", words[0], VERBS))
    return run(words[0], words[1:])


def run(verb: str, words: list[str]) -> int:
    """Run one verb with its words; every error of ours becomes a sentence and an exit code."""
    from collect.console import Console
    from collect.workspace import Workspace

    debug = "--debug" in words or bool(os.environ.get("BOXWRIGHT_DEBUG"))
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        stream=sys.stderr,
        format="%(levelname)s %(name)s: %(message)s",
    )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        implementation = resolve(verb)
        arguments = parser_for(verb, implementation).parse_args(words)
        console = Console(Workspace.at(arguments.root), arguments.as_json, arguments.dry_run, arguments.quiet)
        result = implementation.run(arguments, console)
        if result is not None:
            console.document(result)
    except KeyboardInterrupt as stop:
        how = str(stop) or "Run the same command again to go on."
        sys.stderr.write(f"\nboxwright {verb}: interrupted; what was done is kept. {how}\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BoxwrightError as error:
        if debug:
            logging.exception("in %s", verb)
        return _fail(error)
    except OSError as error:
        if debug:
            logging.exception("in %s", verb)
        return _fail(storage_error(error))
    return 0


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    """SIGTERM is a Ctrl-C: a running event loop ends its work, raising into the middle of that would only break it off."""
    on_ctrl_c = signal.getsignal(signal.SIGINT)
    if callable(on_ctrl_c):
        on_ctrl_c(signal.SIGINT, frame)
    else:  # ignored, as the shell sets it for what a script starts in the background
        raise KeyboardInterrupt


def _fail(error: BoxwrightError) -> int:
    sys.stderr.write(f"boxwright: {error}\n")
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
