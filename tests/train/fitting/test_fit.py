"""Real trainings on small pictures: exact resume after a kill, two processes, and everything that can be wrong."""

from __future__ import annotations

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from boxwright import main
from collect.errors import CorruptError, NotFoundError, TrainingError, UsageError
from collect.workspace import Dataset, Workspace
from train.data.release import check_trainable, open_release
from train.detectors.detector import Batch, Detector
from train.fitting import checkpoint, config, weights
from train.fitting.device import has_bf16
from train.fitting.fit import State
from train.fitting.plan import plan
from train.fitting.progress import Progress
from train.fitting.run import train_run
from train.serving.predictor import Predictor, load_detector

ROOT = Path(__file__).parents[3]
SMALL = {"image_size": 64, "batch_size": 4, "weights": "none", "precision": "fp32", "device": "cpu", "epochs": 2, "freeze": 0}
WORDS = ["--image-size", "64", "--batch-size", "4", "--weights", "none", "--precision", "fp32", "--device", "cpu", "--freeze", "0"]
MakeRelease = Callable[..., Dataset]
pytestmark = pytest.mark.usefixtures("one_thread")


def command(workspace: Workspace, *words: str, launcher: tuple[str, ...] = ()) -> list[str]:
    return [sys.executable, *launcher, "-m", "boxwright", "train", *words, "--root", str(workspace.root)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "BOXWRIGHT_OFFLINE": "1"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with (path / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def scalars_of(path: Path) -> set[str]:
    """What TensorBoard itself reads from a run."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(path / "tensorboard"))
    events.Reload()
    return set(events.Tags()["scalars"])


def wait_until(holds: Callable[[], object], pause_s: float = 0.01, most_s: float = 300) -> None:
    deadline = time.monotonic() + most_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(pause_s)


def last(path: Path) -> dict:
    return checkpoint.load(checkpoint.path_of(path, checkpoint.LAST))


def test_train_run__writes_a_whole_run(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    result = train_run(workspace, "shapes", {**SMALL, "tensorboard": True})
    path = Path(result["path"])
    assert result["run"] == "v001-fcos_mobilenet_v2-1"
    assert workspace.run_path(result["run"]) == path
    for name in ("config.json", "metrics.csv", "metrics.json", "detections-val.json", "detections-test.json", "report.html"):
        assert (path / name).stat().st_size > 0, name
    written = json.loads((path / "config.json").read_text())
    assert [entry["id"] for entry in written["categories"]] == [3, 9]
    assert written["weights_origin"] == "none: from scratch"
    metrics = result["metrics"]
    assert metrics["steps"] == 4
    assert metrics["train_cpu_s"] > 0
    assert set(metrics["val"]) >= {"AP", "AP50", "AR100"}
    rows = rows_of(path)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert {"loss", "AP", "wait_share", "images_per_s"} <= scalars_of(path)
    found = json.loads((path / "detections-val.json").read_text())
    assert {entry["category_id"] for entry in found} <= {3, 9}
    assert train_run(workspace, "shapes", {**SMALL, "epochs": 1})["run"] == "v001-fcos_mobilenet_v2-2"


def test_resume__after_a_kill_every_bit_is_as_if_never_killed(
    make_release: MakeRelease, workspace: Workspace, equal_states: Callable[..., bool]
) -> None:
    """SIGKILL in the middle of an epoch, with accumulation, EMA, sampling by chance, pixel noise and two sizes."""
    make_release(train=24)
    options = ["--epochs", "3", "--accumulate", "2", "--multi-scale", "0.5", "--sampling", "class-balanced", "--mosaic", "0.3"]
    given = {**SMALL, "epochs": 3, "accumulate": 2, "multi_scale": 0.5, "sampling": "class-balanced", "mosaic": 0.3}
    running = subprocess.Popen(
        command(workspace, "shapes", *WORDS, *options, "--checkpoint-every", "0"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    path = workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-1"
    deadline = time.monotonic() + 300
    stopped_at = (0, 0)
    while running.poll() is None and time.monotonic() < deadline:
        if checkpoint.path_of(path, checkpoint.LAST).is_file():
            state = last(path)["state"]
            stopped_at = state["epoch"], state["position"]
            if state["epoch"] >= 1 and state["position"] >= 2:
                running.send_signal(signal.SIGKILL)
                break
        time.sleep(0.02)
    _, words = running.communicate(timeout=60)
    assert running.returncode == -signal.SIGKILL, words
    assert stopped_at[0] >= 1
    resumed = train_run(workspace, "shapes", {"resume": path.name, "device": "cpu"})
    whole = train_run(workspace, "shapes", given)
    assert resumed["run"] != whole["run"]
    one, other = last(Path(resumed["path"])), last(Path(whole["path"]))
    for part in ("model", "ema", "ema_updates", "optimiser", "random"):
        assert equal_states(one[part], other[part]), part
    assert resumed["metrics"]["val"] == whole["metrics"]["val"]
    losses = [[row["loss"] for row in rows_of(Path(run["path"]))] for run in (resumed, whole)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3


def started_and_killed(words: list[str], path: Path, after_s: float, *, inside: bool) -> None:
    """SIGKILL a training some time after it has saved a step of its own; `inside`: as soon as a checkpoint is half written."""
    running = subprocess.Popen(words, env=environment(), stderr=subprocess.DEVNULL)
    wait_until(lambda: checkpoint.path_of(path, checkpoint.LAST).is_file() or running.poll() is not None)
    begun = last(path)["state"]["step"]
    wait_until(lambda: last(path)["state"]["step"] > begun or running.poll() is not None)
    time.sleep(after_s)
    if inside:
        wait_until(lambda: list(path.glob("checkpoints/.last.pt.*.tmp")) or running.poll() is not None, pause_s=0.0)
    running.kill()
    running.wait()


@pytest.mark.slow
def test_resume__after_kills_at_random_moments_every_bit_is_as_if_never_killed(
    make_release: MakeRelease, workspace: Workspace, equal_states: Callable[..., bool]
) -> None:
    """Several SIGKILLs of one run, at moments nobody chose; every second one as soon as a checkpoint is half written."""
    make_release(train=24)
    chance = random.Random()
    path = workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-1"
    words = ["shapes", *WORDS, "--epochs", "12", "--checkpoint-every", "0"]
    again = ["shapes", "--resume", path.name, "--device", "cpu", "--checkpoint-every", "0"]
    half_written, kills = 0, []
    for kill in range(4):
        started_and_killed(command(workspace, *(again if kill else words)), path, chance.uniform(0, 0.7), inside=kill % 2 == 1)
        half_written += len(list(path.glob("checkpoints/.*.tmp")))
        kills.append(last(path)["state"]["step"])
    resumed = train_run(workspace, "shapes", {"resume": path.name, "device": "cpu"})
    whole = train_run(workspace, "shapes", {**SMALL, "epochs": 12})
    one, other = last(path), last(Path(whole["path"]))
    assert kills[0] < one["state"]["step"] and half_written, kills
    for part in ("model", "ema", "ema_updates", "optimiser", "random"):
        assert equal_states(one[part], other[part]), (part, kills)
    assert resumed["metrics"]["val"] == whole["metrics"]["val"]
    assert sorted(file.name for file in (path / "checkpoints").iterdir()) == ["best.pt", "last.pt"]


def test_resume__of_a_finished_run_only_judges_again(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release("others")
    make_release()
    train_run(workspace, "others", {**SMALL, "epochs": 1})  # of the same name: `--resume` means the dataset's own
    first = train_run(workspace, "shapes", {**SMALL, "epochs": 1})
    again = train_run(workspace, "shapes", {"resume": first["run"], "device": "cpu"})
    assert again["metrics"]["val"] == first["metrics"]["val"]
    assert again["metrics"]["steps"] == first["metrics"]["steps"]
    with pytest.raises(UsageError, match="has epochs = 1; a resume cannot change it"):
        train_run(workspace, "shapes", {"resume": first["run"], "epochs": 5})


def test_val_without_boxes__the_last_weights_count_and_patience_does_not(make_release: MakeRelease, workspace: Workspace) -> None:
    dataset = make_release()
    val = dataset.release_path("v001") / "val.json"
    val.write_text(json.dumps(json.loads(val.read_text()) | {"annotations": []}))
    assert "the val split has no boxes: the last weights are kept, not the best" in check_trainable(open_release(dataset))
    options = {**SMALL, "epochs": 3, "eval_every": 1, "patience": 1, "device": "cpu"}
    metrics = train_run(workspace, "shapes", options)["metrics"]
    assert metrics["epochs"] == 3, "an AP of -1 is no epoch without progress"
    assert (workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-1" / "checkpoints" / "best.pt").is_file()


def test_interrupt__keeps_a_checkpoint(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release(train=24)
    running = subprocess.Popen(
        command(workspace, "shapes", *WORDS, "--epochs", "500", "--eval-every", "400"), env=environment(), stderr=subprocess.PIPE, text=True
    )
    assert running.stderr is not None
    while not running.stderr.readline().startswith("epoch 1:"):
        assert running.poll() is None
    running.send_signal(signal.SIGINT)
    _, words = running.communicate(timeout=120)
    assert running.returncode == 130, words
    assert "`boxwright train shapes --resume v001-fcos_mobilenet_v2-1` goes on from there" in words
    assert "Run the same command" not in words, "that would begin a second run"
    assert last(workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-1")["state"]["step"] >= 6


@pytest.mark.slow
def test_two_processes__also_where_a_rank_has_no_box(make_release: MakeRelease, workspace: Workspace) -> None:
    """Batches of one image, half of the images empty: most steps have a rank without any box. It must end, and soon."""
    make_release(train=8, empty_every=2)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    # A checkpoint at every step, and a budget by each process's own clock: whoever decides alone leaves the other one waiting.
    words = ["shapes", *WORDS[:2], "--batch-size", "1", *WORDS[4:], "--epochs", "2", "--json"]
    words += ["--checkpoint-every", "0", "--time-budget", "5000"]
    ended = subprocess.run(
        command(workspace, *words, launcher=launcher), env=environment(), capture_output=True, text=True, timeout=400, check=False
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    path = workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-1"
    state = last(path)["state"]
    assert state["step"] == 8
    assert state["images"] == 16
    assert (path / "report.html").is_file()


def test_resume__with_another_number_of_processes_is_refused(make_release: MakeRelease, workspace: Workspace) -> None:
    """They share an epoch otherwise: some images would come twice, others never."""
    make_release()
    run = Path(train_run(workspace, "shapes", {**SMALL, "epochs": 1})["path"])
    document = last(run)
    document["state"] |= {"world": 2, "finished": False}
    checkpoint.save(checkpoint.path_of(run, checkpoint.LAST), document)
    with pytest.raises(UsageError, match="trained by 2 processes, not 1: resume it with `torchrun --nproc-per-node 2"):
        train_run(workspace, "shapes", {"resume": run.name, "device": "cpu"})


def test_time_budget__ends_and_anneals(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    result = train_run(workspace, "shapes", {**SMALL, "epochs": 10_000, "time_budget_s": 1.5, "budget_clock": "cpu"})
    rows = rows_of(Path(result["path"]))
    assert 1.5 <= result["metrics"]["train_cpu_s"] < 30
    assert 0 < len(rows) < 10_000
    assert float(rows[-1]["lr"]) < 5e-4


def test_early_stopping(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release(train=4)
    options = {**SMALL, "epochs": 40, "learning_rate": 1e-9, "eval_every": 1, "patience": 2, "ema_decay": 0.0}
    result = train_run(workspace, "shapes", options)
    assert result["metrics"]["epochs"] <= 6


def test_prepare__is_called_on_the_new_detector(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    seen: list[Detector] = []

    def prepare(detector: Detector) -> str:
        seen.append(detector)
        return "a warm start"

    result = train_run(workspace, "shapes", {**SMALL, "epochs": 1}, prepare=prepare)
    assert [category.name for category in seen[0].categories] == ["disc", "square"]
    assert result["metrics"]["weights"] == "a warm start"


def test_nan_loss__stops_and_names_the_batch(make_release: MakeRelease, workspace: Workspace, split_images: Callable) -> None:
    dataset = make_release()
    first = train_run(workspace, "shapes", {**SMALL, "epochs": 1})

    def spoil(detector: Detector) -> str:
        with torch.no_grad():
            next(iter(detector.parameters())).view(-1)[0] = float("nan")
        return "spoiled"

    with pytest.raises(TrainingError, match=r"the loss became nan at step 0 .*--lr") as caught:
        train_run(workspace, "shapes", {**SMALL, "epochs": 1}, prepare=spoil)
    names = [path.name for path in split_images(dataset, "train")]
    assert sum(name in str(caught.value) for name in names) == 4
    assert "there was no checkpoint yet" in str(caught.value)
    assert not (workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-2").exists()
    assert last(Path(first["path"]))["state"]["finished"]


def test_gradient_that_is_no_number__spoils_no_weights(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    steps = 0

    def spoil(detector: Detector) -> str:
        def infinite(gradient: torch.Tensor) -> torch.Tensor:
            nonlocal steps
            steps += 1
            return gradient if steps < 4 else gradient + float("inf")

        next(parameter for parameter in detector.parameters() if parameter.requires_grad).register_hook(infinite)
        return "spoiled in the last step of the second epoch"

    with pytest.raises(TrainingError, match=r"the gradient became (inf|nan) at step 3 \(epoch 2\).*the last good checkpoint is kept"):
        train_run(workspace, "shapes", {**SMALL, "epochs": 3, "freeze": 0}, prepare=spoil)
    kept = checkpoint.load(checkpoint.path_of(workspace.runs / "shapes" / "v001-fcos_mobilenet_v2-1", checkpoint.LAST))
    assert all(bool(torch.isfinite(value).all()) for value in kept["model"].values())


def test_learning_rate_far_too_high__stops_and_leaves_no_run(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    with pytest.raises(TrainingError, match=r"there was no checkpoint yet.*smaller --lr than 1e\+30"):
        train_run(workspace, "shapes", {**SMALL, "learning_rate": 1e30, "clip_norm": 1e30})
    assert not list((workspace.runs / "shapes").glob("*"))


def test_corrupt_image_in_the_middle(make_release: MakeRelease, workspace: Workspace, split_images: Callable) -> None:
    dataset = make_release()
    split_images(dataset, "train")[3].write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    split_images(dataset, "val")[0].unlink()
    result = train_run(workspace, "shapes", SMALL)
    assert result["metrics"]["unreadable"] == 2, "one image in each of two epochs"
    assert result["metrics"]["images"] == 14


def edit_release(dataset: Dataset, split: str, change: Callable[[dict], None]) -> None:
    path = dataset.releases / "v001" / f"{split}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_release_without_boxes(make_release: MakeRelease, workspace: Workspace) -> None:
    dataset = make_release()
    edit_release(dataset, "train", lambda document: document["annotations"].clear())
    with pytest.raises(TrainingError, match="no boxes in its train split"):
        train_run(workspace, "shapes", SMALL)
    edit_release(dataset, "train", lambda document: document["images"].clear())
    with pytest.raises(TrainingError, match="no images in its train split"):
        train_run(workspace, "shapes", SMALL)
    assert not (workspace.runs / "shapes").exists()


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["--detector", "yolo"], 2, "unknown detector 'yolo'"),
        (["--weights", "/nowhere.pt"], 3, "there are no weights at /nowhere.pt"),
        (["--weights", "OTHER"], 2, "are of another architecture"),
        (["--weights", __file__], 8, "no weights that torch can read safely"),
        (["--release", "v009"], 3, "no release 'v009'"),
        (["--resume", "v001-none-1"], 3, "unknown run"),
        (["--device", "cuda:7"], 5, "use --device cpu"),
        (["--augment", "/nowhere.json"], 3, "there is no /nowhere.json"),
        (["--device", "meta"], 2, "'meta' is no device that this trains on"),
        (["--seed", "-1"], 2, "--seed -1: at least 0"),
        (["--freeze", "-3"], 2, "--freeze -3: stages"),
        (["--workers", "-5"], 2, "--workers -5: processes"),
        ([], 10, "no boxes in its train split"),
    ],
)
def test_wrong_words__a_sentence_and_an_exit_code(
    make_release: MakeRelease,
    workspace: Workspace,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    says: str,
) -> None:
    dataset = make_release()
    torch.save(torch.nn.Linear(3, 3).state_dict(), tmp_path / "other.pt")
    if not words:
        edit_release(dataset, "train", lambda document: document["annotations"].clear())
    given = [str(tmp_path / "other.pt") if word == "OTHER" else word for word in words]
    assert main(["train", "shapes", *WORDS, *given, "--epochs", "1", "--root", str(workspace.root)]) == code
    told = capsys.readouterr().err
    assert says in told and "Traceback" not in told
    assert not list((workspace.runs / "shapes").glob("*")), "nothing to go on from is no run"


def test_compile__without_a_compiler(
    make_release: MakeRelease, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_release()
    monkeypatch.setenv("CXX", "g++-that-nobody-has")
    assert main(["train", "shapes", *WORDS, "--epochs", "1", "--compile", "--root", str(workspace.root)]) == 5
    assert "no g++-that-nobody-has here" in capsys.readouterr().err


def test_progress__a_live_line_says_speed_waiting_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    state = State(epoch=1, position=3, step=13, images=104, sums={"loss": torch.tensor(6.0), "batches": 3.0, "wait_s": 0.5, "step_s": 10.0})
    progress = Progress(None, live=True)
    progress.step(state, 10, 0.25)
    assert "epoch 2, step 3/10, loss 2.000, 2.4 images/s, 5% waiting for data" in capsys.readouterr().err


def test_batch__is_pinned_by_torchs_own_loader() -> None:
    """The loader pins what it knows and what says how; a dataclass that does not is silently left pageable."""
    from torch.utils.data._utils.pin_memory import pin_memory

    batch = Batch(torch.zeros((1, 3, 8, 8), dtype=torch.uint8), [torch.zeros(0, 4)], [torch.zeros(0, dtype=torch.int64)], ("a.jpg",))
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"accelerator|CUDA|NVIDIA|pin"):
            pin_memory(batch)
        return
    pinned = pin_memory(batch)
    assert pinned.images_B3HW.is_pinned() and pinned.names == ("a.jpg",)


def test_class_without_train_images_is_a_warning(
    make_release: MakeRelease, workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    from collect.console import Console

    dataset = make_release()
    for split in ("train", "val", "test"):
        edit_release(dataset, split, lambda document: document["categories"].append({"id": 11, "name": "star", "supercategory": ""}))
    train_run(workspace, "shapes", {**SMALL, "epochs": 1}, Console(workspace))
    assert "the class 'star' has no train image" in capsys.readouterr().err


def test_bf16_in_software_is_a_warning(make_release: MakeRelease, workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    from collect.console import Console

    make_release()
    train_run(workspace, "shapes", {**SMALL, "epochs": 1, "precision": "bf16"}, Console(workspace))
    assert ("computes bf16 in software" in capsys.readouterr().err) != has_bf16(torch.device("cpu"))


def test_empty_val_split(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release(val=0, test=0)
    result = train_run(workspace, "shapes", {**SMALL, "epochs": 1})
    assert "val" not in result["metrics"]
    assert result["metrics"]["train"]["AP"] >= 0, "there is nothing else to judge on"
    assert load_detector(Path(result["path"])).categories[0].name == "disc"


def test_unknown_things(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    cases: list[tuple[dict, type[Exception], str]] = [
        ({"release": "v009"}, NotFoundError, "no release 'v009'"),
        ({"detector": "yolo"}, UsageError, "unknown detector 'yolo'"),
        ({"sampling": "fair"}, UsageError, "unknown sampling 'fair'"),
        ({"lerning_rate": 1.0}, UsageError, "did you mean 'learning_rate'"),
        ({"epochs": 0}, UsageError, "at least 1"),
        ({"learning_rate": -1.0}, UsageError, "--lr -1: more than 0"),  # it would climb the loss
        ({"image_size": -5}, UsageError, "--image-size -5"),
        ({"mosaic": 1.5}, UsageError, "--mosaic 1.5: a chance"),
        ({"ema_decay": 1.0}, UsageError, "--ema 1: below 1"),
        ({"device": "tpu9"}, UsageError, "unknown device"),
        ({"resume": "v001-none-1"}, NotFoundError, "unknown run"),
        ({"freeze": 9}, UsageError, "has 5 stages"),
        ({"image_size": 70}, UsageError, "not a multiple of 32"),
        ({"crop_px": 40}, UsageError, "multiples of 32"),
        ({"weights": "/nowhere.pt"}, NotFoundError, "no weights at"),
    ]
    for options, kind, words in cases:
        with pytest.raises(kind, match=words):
            train_run(workspace, "shapes", {**SMALL, "epochs": 1, **options})
    assert not list((workspace.runs / "shapes").glob("*")), "a wrong word begins no run"
    assert plan(workspace, "shapes", {"epochs": 4}).settings.epochs == 4


def test_weights__of_another_architecture_or_no_weights(make_release: MakeRelease, workspace: Workspace, tmp_path: Path) -> None:
    make_release()
    other = tmp_path / "other.pt"
    torch.save(torch.nn.Linear(3, 3).state_dict(), other)
    with pytest.raises(UsageError, match="of another architecture: 0 of"):
        train_run(workspace, "shapes", {**SMALL, "weights": str(other)})
    other.write_bytes(b"not weights")
    with pytest.raises(CorruptError, match="holds no weights"):
        train_run(workspace, "shapes", {**SMALL, "weights": str(other)})
    first = train_run(workspace, "shapes", {**SMALL, "epochs": 1})
    best = checkpoint.path_of(Path(first["path"]), checkpoint.BEST)
    second = train_run(workspace, "shapes", {**SMALL, "epochs": 1, "weights": str(best)})
    assert "best.pt" in second["metrics"]["weights"]


def test_weights__a_hostile_pickle_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Hostile:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    (tmp_path / "bad.pt").write_bytes(pickle.dumps({"model": Hostile()}))
    with pytest.raises(CorruptError):
        weights.read_state(tmp_path / "bad.pt")
    assert not (tmp_path / "ran").exists()


def test_checkpoint__of_other_categories(make_release: MakeRelease, workspace: Workspace) -> None:
    make_release()
    result = train_run(workspace, "shapes", {**SMALL, "epochs": 1})
    path = Path(result["path"])
    document = json.loads((path / "config.json").read_text())
    document["categories"].append({"id": 12, "name": "star", "supercategory": ""})
    (path / "config.json").write_text(json.dumps(document))
    with pytest.raises(CorruptError, match="not those of a fcos_mobilenet_v2 with its categories"):
        Predictor.from_run(path, "cpu")
    checkpoint.path_of(path, checkpoint.BEST).write_bytes(b"torn")
    with pytest.raises(CorruptError, match="cannot be read"):
        Predictor.from_run(path, "cpu")


def test_checkpoint__a_full_disk_leaves_the_old_one(small_disk: Path) -> None:
    from collect.errors import StorageError

    path = small_disk / "last.pt"
    checkpoint.save(path, {"small": torch.ones(10)})
    with pytest.raises(StorageError, match="disk is full"):
        checkpoint.save(path, {"large": torch.ones(3_000_000)})
    assert torch.equal(checkpoint.load(path)["small"], torch.ones(10))
    assert [entry.name for entry in small_disk.iterdir()] == ["last.pt"]


def test_config__round_trip(tmp_path: Path) -> None:
    from annotate.coco import Category

    settings = config.TrainConfig("d", "v001", (Category(3, "a", "b"),), mosaic=0.25, seed=7)
    config.write(tmp_path, settings)
    assert config.read(tmp_path) == settings
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CorruptError, match="is no run's config"):
        config.read(tmp_path)


_STARVED = """
import resource, sys
from collect.errors import BoxwrightError
from collect.workspace import Workspace
from train.fitting.device import has_bf16
from train.fitting.fit import State
from train.fitting.progress import Progress
from train.fitting.run import train_run
pages = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + 800 * 2**20,) * 2)
options = dict(image_size=128, batch_size=64, weights="none", precision="fp32", device="cpu", epochs=1, freeze=0)
try:
    train_run(Workspace.at(sys.argv[1]), "shapes", options)
except BoxwrightError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_out_of_memory__says_which_batch_would_fit(make_release: MakeRelease, workspace: Workspace) -> None:
    """A real limit of the address space, 800 MB above what is taken before the training."""
    make_release(train=64)
    words = [sys.executable, "-c", _STARVED, str(workspace.root)]
    ended = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 10, ended.stderr[-2000:]
    found = re.search(r"a batch of 64 images of 128 px does not fit .*; (\d+) would: use --batch-size \1 --accumulate (\d+)", ended.stdout)
    assert found, ended.stdout
    assert 1 <= int(found[1]) < 64
    assert int(found[1]) * int(found[2]) >= 64


def test_probing__leaves_the_detector_and_the_random_numbers_as_they_were(equal_states: Callable[..., bool]) -> None:
    from annotate.coco import Category
    from train.detectors.detector import open_detector
    from train.fitting import memory

    categories = (Category(3, "disc"),)
    detector = open_detector("fcos_mobilenet_v2", categories, 64, "none")
    settings = config.TrainConfig("d", "v001", categories, image_size=64, crop_px=64, precision="fp32")
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    random = torch.get_rng_state()
    assert memory.largest_batch(detector, settings, torch.device("cpu"), 64, most=4) == 4
    assert equal_states(before, dict(detector.state_dict()))
    assert torch.equal(random, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in detector.parameters())
