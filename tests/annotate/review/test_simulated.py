"""The simulated reviewer ends at the truth, and its seconds are the published times."""

from __future__ import annotations

from dataclasses import replace

import pytest

from annotate.journal import Journal, Kind, Status, box_event, new_box_id
from annotate.review.simulated import Costs, Effort, Truth, simulate
from annotate.state import of_image
from collect.definition import Definition

IMAGE = "b" * 64
TRUTH = Truth(IMAGE, 200, 100, (("gull", (10.0, 10.0, 40.0, 40.0)), ("crab", (100.0, 20.0, 50.0, 50.0))))


def propose(journal: Journal, *boxes: tuple[str, tuple[float, float, float, float]]) -> None:
    journal.append(box_event(Kind.PROPOSE, "model:m", IMAGE, new_box_id(), Status.PROPOSED, name, xywh, 0.5) for name, xywh in boxes)


def test_without_proposals_it_draws_all(journal: Journal, definition: Definition) -> None:
    assert simulate(journal, definition, [TRUTH]) == Effort(1, draws=2, seconds=14.0)
    state = of_image(journal, IMAGE)
    assert [(box.category, box.xywh) for box in state.present()] == list(TRUTH.boxes)
    assert (state.verdict, state.reviewer) == ("accepted", "reviewer:simulated")


def test_it_keeps_corrects_deletes_and_draws(journal: Journal, definition: Definition) -> None:
    propose(
        journal,
        ("gull", (11.0, 10.0, 40.0, 40.0)),  # IoU .95: kept
        ("gull", (100.0, 20.0, 50.0, 50.0)),  # the place is right, the class is not: corrected
        ("gull", (150.0, 70.0, 30.0, 30.0)),  # nothing there: deleted
    )
    effort = simulate(journal, definition, [TRUTH], costs=Costs(draw_s=10, correct_s=5, verify_s=1))
    assert effort == Effort(1, draws=0, corrections=1, accepts=1, deletions=1, seconds=7.0)
    assert [(box.category, box.xywh) for box in of_image(journal, IMAGE).present()] == [
        ("gull", (11.0, 10.0, 40.0, 40.0)),
        ("crab", (100.0, 20.0, 50.0, 50.0)),
    ]


@pytest.mark.parametrize(("shift", "kind"), [(4.0, "accepts"), (9.0, "corrections"), (25.0, "draws")])
def test_the_thresholds(journal: Journal, definition: Definition, shift: float, kind: str) -> None:
    truth = Truth(IMAGE, 200, 100, (("gull", (10.0, 10.0, 40.0, 40.0)),))
    propose(journal, ("gull", (10.0 + shift, 10.0, 40.0, 40.0)))
    assert getattr(simulate(journal, definition, [truth]), kind) == 1


def test_it_is_as_exact_as_the_definition_asks(journal: Journal, definition: Definition) -> None:
    """IoU .63: corrected by default, kept where the dataset lets looser boxes pass."""
    truth = Truth(IMAGE, 200, 100, (("gull", (10.0, 10.0, 40.0, 40.0)),))
    propose(journal, ("gull", (19.0, 10.0, 40.0, 40.0)))
    looser = replace(definition, annotate=replace(definition.annotate, keep_iou=0.6))
    assert simulate(journal, looser, [truth]) == Effort(1, accepts=1, seconds=1.6)


def test_every_true_box_is_used_once(journal: Journal, definition: Definition) -> None:
    truth = Truth(IMAGE, 200, 100, (("gull", (10.0, 10.0, 40.0, 40.0)),))
    propose(journal, ("gull", (10.0, 10.0, 40.0, 40.0)), ("gull", (11.0, 10.0, 40.0, 40.0)))
    effort = simulate(journal, definition, [truth])
    assert (effort.accepts, effort.deletions, effort.draws) == (1, 1, 0)
