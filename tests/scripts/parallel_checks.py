"""What tests/scripts/test_parallel.py runs in several processes, and in one for comparison; started
alone, all of it, by torchrun:

python -m torch.distributed.run --standalone --nproc_per_node=2 -m tests.scripts.parallel_checks
FOLDER
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch

import distributed
import test as test_script
import train
import util
from data.batches import Batch
from data.loader import ImageLoader
from networks.trainer import Trainer
from options.train_options import TrainOptions
from tests.conftest import TINY
from util import UserError

util.HEAD_START = 0.0  # nobody speaks first here
CPU = ["--gpu_ids", "-1", "--num_threads", "0"]


class Case(NamedTuple):
    """One accumulation window: batches are `batch_size` consecutive images of `images`, of which
    some cannot be read."""

    batch_size: int
    accumulation_steps: int
    images: int
    unreadable: tuple[int, ...] = ()


CASES = (
    Case(4, 1, 4),
    Case(5, 1, 5),  # parts of different sizes
    Case(4, 3, 9),  # one image in the last batch: the second process' part is empty
    Case(3, 3, 5),  # the window is not filled
    Case(4, 2, 8, unreadable=(1, 3)),  # an empty part in the middle of the window
    Case(4, 2, 8, unreadable=(5, 7)),  # and at its end, where gradients are exchanged
    Case(2, 2, 6, unreadable=(2, 3)),  # a batch without any image
)
MODELS = ("single_scale", "multiscale_attention")


def trainer_for(model_type: str, case: Case) -> Trainer:
    """BatchNorm in evaluation mode and dropout off, so that the loss is a mean over images; a step
    is minus the gradient.

    The single-scale model computes in double precision: it has so many ReLUs that in single
    precision one of them may flip when a batch is divided otherwise.
    """
    torch.manual_seed(0)
    opt = TrainOptions(
        model_type=model_type,
        feature_dim=16,
        gpu_ids=(),
        optim="sgd",
        lr=1.0,
        batch_size=case.batch_size,
        accumulation_steps=case.accumulation_steps,
        attention_entropy_weight=0.5,
    )
    torch.set_default_dtype(torch.float64 if model_type == "single_scale" else torch.float32)
    trainer = Trainer(opt)
    torch.set_default_dtype(torch.float32)
    trainer.model.eval()
    return trainer


def train_window(trainer: Trainer, case: Case) -> list[float]:
    """This process' part of every batch; the mean loss of each."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(case.images, 3, 24, 24, generator=generator)
    losses = []
    for start in range(0, case.images, case.batch_size):
        numbers = list(range(start, min(start + case.batch_size, case.images)))
        part = [
            n
            for n in numbers[distributed.rank() :: distributed.world_size()]
            if n not in case.unreadable
        ]
        if not part and distributed.world_size() == 1:
            continue
        trainer.set_input(
            (
                images[part].to(next(trainer.model.parameters()).dtype),
                torch.tensor(part, dtype=torch.long) % 2,
            )
        )
        if trainer.optimize_parameters():
            losses.append(trainer.mean_loss())
    trainer.finish_window()
    return losses


def gradients() -> dict[str, dict[str, Any]]:
    """Of every model and case: the gradient of each weight, and the losses."""
    found: dict[str, dict[str, Any]] = {}
    for model_type in MODELS:
        for case in CASES:
            trainer = trainer_for(model_type, case)
            before = [weight.detach().clone() for weight in trainer.model.parameters()]
            losses = train_window(trainer, case)
            after = [weight.detach() for weight in trainer.model.parameters()]
            found[f"{model_type} {tuple(case)}"] = {
                "gradient": [old - new for old, new in zip(before, after, strict=True)],
                "losses": losses,
                "step": trainer.step,
            }
            for others in distributed.gather(after):
                assert all(
                    torch.equal(one, other) for one, other in zip(after, others, strict=True)
                )
    return found


def statistics() -> None:
    """BatchNorm's statistics: apart in training, untouched by an empty part, the mean of all in a
    checkpoint."""
    case = Case(batch_size=4, accumulation_steps=1, images=1)
    trainer = trainer_for("single_scale", case)
    trainer.model.train()
    mean = trainer.model.bn1.running_mean
    train_window(trainer, case)
    apart = torch.stack(distributed.gather(mean.clone()))
    assert apart[0].any() and not apart[1:].any()
    trainer.state_dict()
    together = distributed.gather(mean.clone())
    assert torch.allclose(together[0], apart.mean(0))
    assert all(torch.equal(together[0], other) for other in together)


def random_numbers() -> None:
    """Dropout: the first process draws what a process alone would, every other something of its
    own."""
    torch.manual_seed(0)
    Trainer(TrainOptions(model_type="multiscale_attention", feature_dim=16, gpu_ids=()))
    drawn = [tuple(numbers) for numbers in distributed.gather(torch.rand(4).tolist())]
    assert len(set(drawn)) == distributed.world_size()


@contextmanager
def recorded() -> Iterator[list[list[int]]]:
    """The numbers of the images of each training batch, as this process gets them."""
    seen: list[list[int]] = []
    images = ImageLoader.images

    def noting(self: ImageLoader, batch: Batch, device: torch.device | str = "cpu") -> torch.Tensor:
        if self.dataset.protocol.augment is not None:
            seen.append(batch.indices.tolist())
        return images(self, batch, device)

    ImageLoader.images = noting
    try:
        yield seen
    finally:
        ImageLoader.images = images


@contextmanager
def interrupted_at(step: int) -> Iterator[None]:
    """Ctrl-C in every process when this many steps are done."""
    optimize = Trainer.optimize_parameters

    def stop_there(self: Trainer) -> bool:
        if self.step == step:
            raise KeyboardInterrupt
        return optimize(self)

    Trainer.optimize_parameters = stop_there
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        Trainer.optimize_parameters = optimize


def train_run(folder: Path, name: str, *extra: str, stop: int | None = None) -> list[list[int]]:
    """Train on folder/data; the images of each batch, of all processes together."""
    argv = [
        "--name",
        name,
        "--dataroot",
        str(folder / "data"),
        "--checkpoints_dir",
        str(folder / "checkpoints"),
        *TINY,
    ]
    argv += [
        "--model_type",
        "multiscale_attention",
        "--feature_dim",
        "16",
        "--niter",
        "2",
        "--save_latest_freq",
        "2",
    ]
    argv += ["--batch_size", "5", *extra]
    with recorded() as seen:
        if stop is None:
            train.main(argv)
        else:
            with interrupted_at(stop):
                train.main(argv)
    return [sorted(sum(parts, [])) for parts in zip(*distributed.gather(seen), strict=True)]


def refusal(folder: Path, *flags: str) -> str:
    """The error that train.py ends with."""
    try:
        train.main(
            ["--dataroot", str(folder / "data"), "--checkpoints_dir", str(folder / "none"), *flags]
        )
    except UserError as error:
        return str(error)
    return ""


def all_checks(folder: Path) -> None:
    """Everything, in the processes that torchrun started; what pytest looks at goes to
    folder/found.pth."""
    found: dict[str, Any] = {"gradients": gradients(), "world_size": distributed.world_size()}
    statistics()
    random_numbers()
    found["whole"] = train_run(folder, "whole")
    found["parts, begun"] = train_run(folder, "parts", stop=9)
    found["parts, ended"] = train_run(folder, "parts", "--continue_train")
    found["several_then_one, begun"] = train_run(folder, "several_then_one", stop=7)
    found["one_then_several, ended"] = train_run(folder, "one_then_several", "--continue_train")
    refused = {"sync_bn": ["--sync_bn"], "batch_size": ["--batch_size", "1"]}
    for name, flags in refused.items():
        found[name] = refusal(folder, *TINY, *flags)
    found["sizes"] = refusal(folder, *CPU, "--no_resize", "--no_crop", "--batch_size", "4")
    found["small"] = refusal(folder, *CPU, "--no_resize", "--batch_size", "4")
    score(folder, folder / "results_of_several")
    if distributed.rank() == 0:
        torch.save(found, folder / "found.pth")


def score(folder: Path, results: Path) -> None:
    """Test the checkpoint folder/model_epoch_last.pth, without pictures."""
    model = [
        "--model_path",
        str(folder / "model_epoch_last.pth"),
        "--dataroot",
        str(folder / "data" / "test"),
    ]
    with patch("reports.result_folder.draw_plots", lambda *_args, **_more: []):
        test_script.main(
            [*model, *CPU, "--batch_size", "3", "--bootstrap", "100", "--results_dir", str(results)]
        )


if __name__ == "__main__":
    with distributed.process_group(()):
        all_checks(Path(sys.argv[1]))
