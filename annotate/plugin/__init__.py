"""The review's buttons, keys and panel in the App: thin, everything is done in :mod:`annotate.review.session`."""

from __future__ import annotations

from typing import Any

import fiftyone.operators as foo
from fiftyone.operators import types

from annotate.journal import Verdict
from annotate.review import progress, session
from annotate.review.session import Session
from annotate.review.verdicts import Outcome
from collect.errors import BoxwrightError, UsageError

PLUGIN = "@boxwright/review"


class _Act(foo.Operator):  # type: ignore[misc]
    """An operator on the open image, or on those selected in the grid."""

    NAME = ""
    LABEL = ""
    ICON = ""
    PROMPT = False
    BUTTON = True

    @property
    def config(self) -> Any:
        return foo.OperatorConfig(name=self.NAME, label=self.LABEL, icon=self.ICON, dynamic=self.PROMPT)

    def resolve_placement(self, ctx: Any) -> Any:
        if not self.BUTTON:
            return None
        place = types.Places.SAMPLES_VIEWER_ACTIONS if ctx.current_sample else types.Places.SAMPLES_GRID_ACTIONS
        return types.Placement(place, types.Button(label=self.LABEL, icon=self.ICON, prompt=self.PROMPT))

    def execute(self, ctx: Any) -> dict[str, Any]:
        """Do it on every target; an error of ours becomes the message the person sees."""
        try:
            review = session.open_session(ctx.dataset)
            outcomes = [self.act(review, sample, ctx.params) for sample in self.targets(ctx)]
        except BoxwrightError as error:
            raise ValueError(str(error)) from error
        return _result(ctx, review, outcomes)

    def targets(self, ctx: Any) -> list[str]:
        chosen = [ctx.current_sample] if ctx.current_sample else list(ctx.selected or [])
        if not chosen:
            raise UsageError("open an image, or select some in the grid first")
        return chosen

    def act(self, review: Session, sample: str, params: dict[str, Any]) -> Outcome:
        raise NotImplementedError


class _Verdict(_Act):
    """An operator that is a verdict."""

    def act(self, review: Session, sample: str, params: dict[str, Any]) -> Outcome:
        return review.judge(sample, self.NAME, params.get("seconds"))


class Accept(_Verdict):
    """The boxes are right."""

    NAME, LABEL, ICON = "accept", "Accept (A)", "check_circle"


class Reject(_Verdict):
    """The image does not belong into the dataset."""

    NAME, LABEL, ICON = "reject", "Reject (R)", "block"


class NeedsBoxes(_Verdict):
    """Boxes are missing or wrong; somebody else shall mend them."""

    NAME, LABEL, ICON = "needs_boxes", "Needs boxes (N)", "pending_actions"


class MarkNegative(_Verdict):
    """Nothing of any class is on the image."""

    NAME, LABEL, ICON = "mark_negative", "Negative: nothing on it (0)", "hide_image"


class Undo(_Act):
    """Take back the last verdict."""

    NAME, LABEL, ICON = "undo", "Undo the last verdict (Z)", "undo"

    def targets(self, ctx: Any) -> list[str]:
        return [ctx.current_sample or ""]

    def act(self, review: Session, sample: str, params: dict[str, Any]) -> Outcome:  # noqa: ARG002
        return review.undo(sample or None)


class NextImage(_Act):
    """Go to the next image that waits for a verdict."""

    NAME, LABEL, ICON = "next_image", "Next image", "skip_next"

    def targets(self, ctx: Any) -> list[str]:
        return [ctx.current_sample or ""]

    def act(self, review: Session, sample: str, params: dict[str, Any]) -> Outcome:  # noqa: ARG002
        return Outcome(sample)


class RelabelAll(_Act):
    """Give every box of the image one class."""

    NAME, LABEL, ICON, PROMPT = "relabel_all", "Relabel all boxes", "label", True

    def resolve_input(self, ctx: Any) -> Any:
        inputs = types.Object()
        names = list((ctx.dataset.info or {}).get("classes", {}))
        inputs.enum("category", values=names, required=True, label="Class of every box")
        return types.Property(inputs, view=types.View(label=self.LABEL))

    def act(self, review: Session, sample: str, params: dict[str, Any]) -> Outcome:
        return review.relabel_all(sample, params.get("category") or "")


class AcceptAbove(_Act):
    """Accept the proposals that score at least so much."""

    NAME, LABEL, ICON, PROMPT = "accept_above", "Accept all above a score", "done_all", True

    def resolve_input(self, ctx: Any) -> Any:  # noqa: ARG002
        inputs = types.Object()
        inputs.float("score", min=0.0, max=1.0, default=0.9, required=True, label="Score from which a proposal is accepted")
        return types.Property(inputs, view=types.View(label=self.LABEL))

    def targets(self, ctx: Any) -> list[str]:
        if ctx.current_sample or ctx.selected:
            return super().targets(ctx)
        return [str(number) for number in ctx.view.match({"review": str(Verdict.PENDING)}).values("id")]

    def act(self, review: Session, sample: str, params: dict[str, Any]) -> Outcome:
        try:
            score = float(params["score"])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError("say from which score on, as a number from 0 to 1") from error
        return review.accept_above(sample, score)


class Progress(foo.Panel):  # type: ignore[misc]
    """Where the review stands."""

    @property
    def config(self) -> Any:
        return foo.PanelConfig(name="progress", label="Review progress", icon="insights", surfaces="grid modal")

    def on_load(self, ctx: Any) -> None:
        self._fill(ctx)

    def on_change_current_sample(self, ctx: Any) -> None:
        self._fill(ctx)

    def refresh(self, ctx: Any) -> None:
        self._fill(ctx)

    def _fill(self, ctx: Any) -> None:
        try:
            review = session.open_session(ctx.dataset)
        except BoxwrightError as error:
            ctx.panel.state.text = str(error)
            return
        shown = progress.progress(review)
        ctx.panel.state.text = progress.as_markdown(shown)
        ctx.panel.state.classes = shown["classes"]

    def render(self, ctx: Any) -> Any:  # noqa: ARG002
        panel = types.Object()
        panel.md("Loading…", name="text")
        table = types.TableView()
        for key, label in progress.CLASS_COLUMNS.items():
            table.add_column(key, label=label)
        panel.list("classes", types.Object(), view=table, label="Classes")
        panel.btn("refresh", label="Refresh", icon="refresh", on_click=self.refresh, variant="outlined")
        return types.Property(panel, view=types.GridView(align_x="left", gap=2, padding=2))


def _result(ctx: Any, review: Session, outcomes: list[Outcome]) -> dict[str, Any]:
    """What the keys script goes on with, and what the page must do where a button was pressed."""
    result = progress.told(review, ctx.current_sample, outcomes)
    by_button = getattr(ctx, "executor", None) is not None and not ctx.params.get("keyed")
    if by_button and ctx.current_sample:
        ctx.trigger(f"{PLUGIN}/go", result)
    elif by_button:
        ctx.ops.clear_selected_samples()
        ctx.ops.reload_samples()
        ctx.ops.notify(f"{result['verdict'] or 'done'}: {len(outcomes)} image(s)", variant="success")
    return result


def register(plugin: Any) -> None:
    """Called by FiftyOne."""
    for operator in (Accept, Reject, NeedsBoxes, MarkNegative, Undo, NextImage, RelabelAll, AcceptAbove, Progress):
        plugin.register(operator)
