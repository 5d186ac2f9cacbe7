"""The checkpoints that the page offers, and what each was made of."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from device import memory_errors
from inference.detector import Detector
from networks.checkpoint import model_name
from util import UserError


class Models:
    """Detectors by name; each is loaded when it is first asked for, and kept.

    Args:
        paths: checkpoints. load: how one becomes a detector.

    Raises:
        UserError: one is not there, or two have one name.
    """

    def __init__(self, paths: Sequence[Path], load: Callable[[Path], Detector]) -> None:
        self._paths: dict[str, Path] = {}
        for path in paths:
            if not path.exists():
                raise UserError(f"--model_path {path}: no such file")
            if (name := model_name(path)) in self._paths:
                raise UserError(
                    f"--model_path {path}: {self._paths[name]} is called {name}, too; rename one of them"
                )
            self._paths[name] = path
        self._load, self._loaded = load, dict[str, Detector]()
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        return list(self._paths)

    def __getitem__(self, name: str) -> Detector:
        """The detector of that name.

        Raises:
            UserError: the checkpoint cannot be used, or memory does not suffice (see
                `inference.memory`).
            KeyError: there is none of that name.
        """
        with self._lock:
            if name not in self._loaded:
                with memory_errors():
                    self._loaded[name] = self._load(self._paths[name])
            return self._loaded[name]


@dataclass(frozen=True)
class Fact:
    """Something to know about a model: what it is about, and what is so."""

    label: str
    text: str


def facts(detector: Detector) -> list[Fact]:
    """What a model was trained on and how well it did there, as far as its checkpoint says; no
    paths of the machine."""
    options = detector.loaded.meta.get("options")
    options = options if isinstance(options, dict) else {}
    dataroot, classes = options.get("dataroot"), options.get("classes")
    trained = Path(dataroot).name if isinstance(dataroot, str) else "the checkpoint does not say"
    if dataroot and isinstance(classes, list | tuple):
        trained += f" ({', '.join(map(str, classes)) if classes else 'all its classes'})"
    epoch = detector.loaded.epoch
    kind = (
        "single scale"
        if len(detector.scales) == 1
        else f"{len(detector.scales)} scales fused by attention"
    )
    found = [
        Fact(
            "Trained on",
            trained + ("" if epoch is None else f", {epoch} epoch{'s' * (epoch != 1)}"),
        ),
        Fact("On validation pictures", _validation(detector.loaded.meta.get("val_metrics"))),
        Fact("Calibration", _calibration(detector)),
        Fact("Model", f"{kind}: {', '.join(f'{scale:g}' for scale in detector.scales)}"),
        Fact(
            "Preprocessing",
            f"{detector.protocol.name}; file {detector.loaded.sha256[:12]} (SHA-256)",
        ),
    ]
    return [fact for fact in found if fact.text]


def _validation(metrics: Any) -> str:
    names = {"acc": "accuracy", "ap": "average precision", "auc": "ROC AUC"}
    if not isinstance(metrics, dict):
        return "not measured, or the checkpoint does not say"
    said = [
        f"{name} {metrics[key]:.3f}"
        for key, name in names.items()
        if isinstance(metrics.get(key), float)
    ]
    counts = [metrics.get("n_real"), metrics.get("n_fake")]
    if all(isinstance(count, int) for count in counts):
        said.append(f"{counts[0]:,} real and {counts[1]:,} generated pictures")
    return ", ".join(said)


def _calibration(detector: Detector) -> str:
    fitted = detector.calibration
    if fitted is None:
        return "none: the score is no probability"
    return (
        f"on {fitted.n_real:,} real and {fitted.n_fake:,} generated pictures of {Path(fitted.data).name};"
        f" expected calibration error {fitted.ece_after:.3f}"
    )
