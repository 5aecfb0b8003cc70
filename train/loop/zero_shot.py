"""Proposals from text: Grounding DINO, OWLv2 and SAM 3 by way of transformers, weights from the hub or from a folder.

A class is asked for by its `prompt`, else by its name, and by each of its synonyms; what several phrases find in one place
is merged. Grounding DINO and SAM 3 see one phrase at a time: with several at once, the words of one answer another's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from collect.definition import Definition
from collect.errors import MissingServiceError, RefusedError, UsageError
from collect.files import sha256_file
from collect.records import ImageRecord
from train.detectors import hub
from train.loop.propose import Found, Proposer, Request
from train.loop.proposers import Tiled

#: Rows `(place of the phrase, [x1, y1, x2, y2], score)`.
Rows = list[tuple[int, list[float], float]]
Ask = Callable[["ZeroShotProposer", NDArray[np.uint8], Sequence[str]], Rows]


@dataclass(frozen=True)
class ZeroShotProposer:
    """A text-prompted detector. `phrases` are pairs (class name, phrase)."""

    model: Any
    processor: Any
    ask: Ask
    phrases: tuple[tuple[str, str], ...]
    name: str
    weights_sha256: str
    threshold: float
    device: str
    reason: str = ""

    def propose(self, image_HW3: NDArray[np.uint8], record: ImageRecord) -> list[Found]:  # noqa: ARG002 - only text and pixels count
        rows = self.ask(self, image_HW3, [phrase for _, phrase in self.phrases])
        found = []
        for place, (x1, y1, x2, y2), score in rows:
            category, phrase = self.phrases[place]
            found.append(Found(category, (x1, y1, x2 - x1, y2 - y1), score, phrase))
        return found

    def run(self, image_HW3: NDArray[np.uint8], text: Any) -> tuple[Any, Any]:
        """The processor's inputs and the model's outputs for one picture."""
        import torch

        inputs = self.processor(images=image_HW3, text=text, padding=True, truncation=True, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            return inputs, self.model(**inputs)


def phrases_of(definition: Definition) -> tuple[tuple[str, str], ...]:
    """What each class is asked for by: pairs (class name, phrase)."""
    pairs = [(entry.name, phrase) for entry in definition.classes for phrase in (entry.prompt or entry.name, *entry.synonyms)]
    return tuple(dict.fromkeys((name, phrase.strip().lower()) for name, phrase in pairs if phrase.strip()))


def _grounded(proposer: ZeroShotProposer, image_HW3: NDArray[np.uint8], phrases: Sequence[str]) -> Rows:
    rows: Rows = []
    for place, phrase in enumerate(phrases):
        inputs, outputs = proposer.run(image_HW3, phrase.rstrip(".") + ".")
        answer = proposer.processor.post_process_grounded_object_detection(
            outputs, inputs["input_ids"], threshold=proposer.threshold, text_threshold=0.0, target_sizes=[image_HW3.shape[:2]]
        )[0]
        rows += _rows(answer, [place] * len(answer["scores"]))
    return rows


def _queried(proposer: ZeroShotProposer, image_HW3: NDArray[np.uint8], phrases: Sequence[str]) -> Rows:
    _, outputs = proposer.run(image_HW3, [[f"a photo of a {phrase}" for phrase in phrases]])
    answer = proposer.processor.post_process_grounded_object_detection(
        outputs, threshold=proposer.threshold, target_sizes=[image_HW3.shape[:2]]
    )[0]
    return _rows(answer, answer["labels"].tolist())


def _concept(proposer: ZeroShotProposer, image_HW3: NDArray[np.uint8], phrases: Sequence[str]) -> Rows:
    """SAM 3 looks at the picture once for all phrases; its processor pads by itself, and refuses to be told to."""
    import torch

    rows: Rows = []
    with torch.inference_mode():
        pixels = proposer.processor(images=image_HW3, return_tensors="pt").to(proposer.device)["pixel_values"]
        seen = proposer.model.get_vision_features(pixel_values=pixels)
    for place, phrase in enumerate(phrases):
        words = proposer.processor(text=phrase, return_tensors="pt").to(proposer.device)
        with torch.inference_mode():
            outputs = proposer.model(vision_embeds=seen, **words)
        answer = proposer.processor.post_process_object_detection(
            outputs, threshold=proposer.threshold, target_sizes=[image_HW3.shape[:2]]
        )[0]
        rows += _rows(answer, [place] * len(answer["scores"]))
    return rows


def _rows(answer: Any, places: Sequence[int]) -> Rows:
    return list(zip(places, answer["boxes"].tolist(), answer["scores"].tolist(), strict=True))


class Family(NamedTuple):
    """How a family is asked: transformers' classes of model and processor, and the threshold its authors use."""

    ask: Ask
    threshold: float
    model: str = "AutoModelForZeroShotObjectDetection"
    processor: str = "AutoProcessor"


_SAM3 = Family(_concept, 0.5, "Sam3Model", "Sam3Processor")
#: By transformers' model type. `facebook/sam3` on the hub is a `sam3_video`, whose detector `Sam3Model` takes out.
FAMILIES: dict[str, Family] = {
    "grounding-dino": Family(_grounded, 0.3),
    "mm-grounding-dino": Family(_grounded, 0.3),
    "owlv2": Family(_queried, 0.2),
    "owlvit": Family(_queried, 0.1),
    "sam3": _SAM3,
    "sam3_video": _SAM3,
}


def open_zero_shot(request: Request) -> Proposer:
    """A zero-shot model by its name on the hub (such as `IDEA-Research/grounding-dino-tiny`) or its folder.

    Raises:
        MissingServiceError: transformers is not installed, or the weights can be had neither here nor from the hub.
        UsageError: the model is of no family that takes text.
        RefusedError: the weights do not fill the model; what they leave at random would propose at random.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingServiceError("zero-shot proposals need transformers; `pip install 'boxwright[transformers]'`") from error
    place, local = _place(request)
    with hub.quiet(transformers, bars=not local):
        return _opened(request, transformers, place, local)


def _opened(request: Request, transformers: Any, place: str, local: bool) -> Proposer:
    kind = _load(transformers.AutoConfig, place, local).model_type
    if kind not in FAMILIES:
        raise UsageError(f"{place} is a '{kind}' and takes no text; families that do: {', '.join(FAMILIES)}")
    family = FAMILIES[kind]
    device = _device(request.device)
    model, told = _load(getattr(transformers, family.model), place, local, output_loading_info=True)
    if absent := sorted(told["missing_keys"]):
        raise RefusedError(
            f"the weights of {place} lack {len(absent)} of the tensors of its model, {absent[0]} among them, "
            "and what is left at random would propose at random; another version of transformers may know these weights"
        )
    proposer = ZeroShotProposer(
        model=model.to(device).eval(),
        processor=_load(getattr(transformers, family.processor), place, local),
        ask=family.ask,
        phrases=_narrowed(phrases_of(request.definition), request),
        name=f"zero-shot:{Path(request.model).name if Path(request.model).is_dir() else request.model}",
        weights_sha256=_weights_sha256(place),
        threshold=family.threshold if request.threshold is None else request.threshold,
        device=device,
    )
    return Tiled(proposer) if request.tiles else proposer


def _narrowed(phrases: tuple[tuple[str, str], ...], request: Request) -> tuple[tuple[str, str], ...]:
    if not request.category:
        return phrases
    wanted = request.definition.class_named(request.category).name
    return tuple(pair for pair in phrases if pair[0] == wanted)


def _place(request: Request) -> tuple[str, bool]:
    """Where the weights are looked for: a folder or a name on the hub; and whether only on this machine.

    Raises:
        MissingServiceError: the folder is not there.
    """
    place = request.weights or request.model
    folder = Path(place).expanduser()
    if folder.is_dir():
        return str(folder), True
    if place.startswith(("/", "./", "../", "~")):
        raise MissingServiceError(f"there is no folder {place}; give that of a downloaded model: --from zero-shot:FOLDER")
    return place, hub.out_of_reach()


def _load(kind: Any, place: str, local: bool, **more: bool) -> Any:
    try:
        return kind.from_pretrained(place, local_files_only=local, **more)
    except (OSError, ValueError, ImportError, KeyError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if Path(place).is_dir():
            words = f"the folder {place} holds no zero-shot model that transformers can load: {reason}"
        elif local:
            words = f"the zero-shot model '{place}' is not in the hub's cache on this machine, and the hub does not answer"
        else:
            words = f"the hub gives no zero-shot model '{place}': {reason}"
        raise MissingServiceError(f"{words}; give the folder of a downloaded copy: --from zero-shot:FOLDER") from error


def _device(wanted: str) -> str:
    import torch

    return wanted if wanted and wanted != "auto" else ("cuda" if torch.cuda.is_available() else "cpu")


def _weights_sha256(place: str) -> str:
    """sha256 of the weights file: of a folder, or of the hub's copy in the cache; "" where there are several."""
    folder = Path(place)
    if not folder.is_dir():
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(place, "model.safetensors")
        return sha256_file(Path(cached)) if isinstance(cached, str) else ""
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")])
    return sha256_file(files[0]) if len(files) == 1 else ""
