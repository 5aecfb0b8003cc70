"""Where everything lies: the one module that knows the folder layout under `--root`."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

from collect.errors import CorruptError, NotFoundError, UsageError, unknown_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"v[0-9]{3,}")


@dataclass(frozen=True)
class Dataset:
    """The paths of one dataset; nothing is opened or created."""

    name: str
    folder: Path
    runs: Path

    @property
    def definition(self) -> Path:
        return self.folder / "dataset.toml"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.sqlite"

    @property
    def labels(self) -> Path:
        return self.folder / "labels.sqlite"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def releases(self) -> Path:
        return self.folder / "releases"

    @property
    def champion(self) -> Path:
        return self.folder / "champion.json"

    @property
    def locks(self) -> Path:
        return self.folder / ".locks"

    def image_path(self, sha256: str, extension: str) -> Path:
        """`images/ab/cd/<sha256>.<extension>`, extension without a dot."""
        return self.images / sha256[:2] / sha256[2:4] / f"{sha256}.{extension}"

    def release_path(self, version: str) -> Path:
        """The folder of a release, which must exist.

        Raises:
            NotFoundError: no such release; names those there are.
        """
        path = self.releases / version
        if not (path / "manifest.json").is_file():
            there = ", ".join(self.release_names()) or f"none yet; `boxwright release {self.name}` makes one"
            raise NotFoundError(f"{self.name} has no release '{version}' (there: {there})")
        return path

    def champion_run(self) -> str:
        """The run that champion.json names.

        Raises:
            NotFoundError: there is none yet.
            CorruptError: it names none.
        """
        try:
            return str(json.loads(self.champion.read_bytes())["run"])
        except FileNotFoundError as error:
            raise NotFoundError(f"{self.name} has no champion yet; `boxwright retrain {self.name}` makes the first") from error
        except (ValueError, KeyError, TypeError) as error:
            raise CorruptError(f"{self.champion} names no run; mend or remove it, then `boxwright retrain {self.name}`") from error

    def release_names(self) -> list[str]:
        """Finished releases, oldest first: `["v001", "v002"]`; by number, so that v1000 comes after v999."""
        names = (path.parent.name for path in self.releases.glob("v*/manifest.json"))
        return sorted((name for name in names if _VERSION.fullmatch(name)), key=lambda name: int(name[1:]))


@dataclass(frozen=True)
class Workspace:
    """The folder given by `--root`, else `BOXWRIGHT_ROOT`, else the working directory."""

    root: Path

    @classmethod
    def at(cls, root: str | Path | None = None) -> Workspace:
        return cls(Path(root or os.environ.get("BOXWRIGHT_ROOT") or ".").resolve())

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    def new_dataset(self, name: str) -> Dataset:
        """The paths of a dataset that need not exist yet.

        Raises:
            UsageError: the name cannot be a folder's name.
        """
        if not _NAME.fullmatch(name):
            raise UsageError(f"'{name}' cannot name a dataset; use letters, digits, '.', '_' and '-', a letter or digit first")
        return Dataset(name, self.datasets / name, self.runs / name)

    def dataset(self, name: str) -> Dataset:
        """The paths of a dataset that exists (has a dataset.toml).

        Raises:
            NotFoundError: no such dataset under the root; names the nearest.
        """
        dataset = self.new_dataset(name)
        if not dataset.definition.is_file():
            hint = unknown_name("dataset", name, self.dataset_names())
            raise NotFoundError(f"{hint} (looked in {self.datasets}; `boxwright init {name} --class …` makes it)")
        return dataset

    def dataset_names(self) -> list[str]:
        return sorted(path.parent.name for path in self.datasets.glob("*/dataset.toml"))

    def run_path(self, run: str, dataset: str = "") -> Path:
        """The folder of a run given by its name (`v001-fcos-1`, when only one dataset has it), `NAME/RUN`, `NAME/champion` or a path.

        Where a `dataset` is at hand, its own run of that name is meant, and `champion` is its champion.

        Raises:
            NotFoundError: no such run, or no champion yet.
            UsageError: several datasets have a run of that name.
            CorruptError: champion.json names none.
        """
        if dataset and run == "champion":
            run = f"{dataset}/champion"
        for direct in (Path(run), self.runs / run, *([self.runs / dataset / run] if dataset else [])):
            if (direct / "config.json").is_file():
                return direct.resolve()
        owner, _, last = run.partition("/")
        if last == "champion":
            return self.run_path(f"{owner}/{self.dataset(owner).champion_run()}")
        found = sorted(self.runs.glob(f"*/{run}/config.json")) if _NAME.fullmatch(run) else []
        if len(found) > 1:
            choices = ", ".join(f"{path.parent.parent.name}/{run}" for path in found)
            raise UsageError(f"several datasets have a run '{run}'; say which: {choices}")
        if not found:
            there = [f"{path.parent.parent.name}/{path.parent.name}" for path in sorted(self.runs.glob("*/*/config.json"))]
            raise NotFoundError(str(unknown_name("run", run, there)))
        return found[0].parent
