"""NaN and infinity in training: named, left out where allowed, and never in a checkpoint."""

import re
from pathlib import Path

import pytest
import torch

import train
from networks.checkpoint_file import read_checkpoint
from networks.losses import READ_EVERY, FiniteGuard, NonFiniteError
from networks.trainer import Trainer
from options.train_options import TrainOptions
from tests.networks.test_trainer import MULTI, batch
from tests.scripts.test_scripts import only, scalars, train_argv
from util import UserError

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("at_once", (True, False))
@pytest.mark.parametrize(
    ("losses", "gradient", "steps", "what"),
    [
        ([1.0, NAN], 1.0, [8], "the loss is nan"),
        ([-INF, 1.0], 1.0, [7], "the loss is -inf"),
        ([1.0, 2.0], NAN, [7, 8], "the gradients are not finite"),
        ([1.0, 2.0], INF, [7, 8], "the gradients are not finite"),
    ],
)
def test_what_is_not_finite_is_named(
    losses: list[float], gradient: float, steps: list[int], what: str, at_once: bool
) -> None:
    guard = FiniteGuard(0, check_gradients=True, at_once=at_once)
    good, bad = torch.ones(3), torch.tensor([1.0, gradient, 1.0])
    assert guard.passes([5, 6], [torch.tensor(1.0), torch.tensor(2.0)], [good])
    tensors = [torch.tensor(loss) for loss in losses]
    with pytest.raises(NonFiniteError, match=what) as error:
        # judged later: taken first
        assert guard.passes([7, 8], tensors, [good, bad]) is not at_once
        guard.settle()
    assert error.value.steps == steps


def test_steps_taken_unseen_are_read_every_so_many() -> None:
    """As on a GPU: the first bad one of those is named, not the last."""
    guard = FiniteGuard(0, check_gradients=True, at_once=False)
    last = 2 * READ_EVERY
    with pytest.raises(NonFiniteError, match=f"step {READ_EVERY + 7}: the loss is nan") as error:
        for step in range(1, last + 1):
            loss = NAN if step in (READ_EVERY + 7, READ_EVERY + 9) else 1.0
            assert guard.passes([step], [torch.tensor(loss)], [torch.ones(1)])
            assert step < last
    assert error.value.steps == [READ_EVERY + 7]


def spoilt(trainer: Trainer) -> None:
    images, labels = batch(4, seed=9)
    trainer.set_input((images * NAN, labels))


def test_left_out_steps_leave_no_trace() -> None:
    """With bad batches between: the same weights, statistics and optimizer as without them."""
    opt = TrainOptions(**MULTI, batch_size=4, skip_nonfinite=2)
    states = []
    for bad in (False, True):
        torch.manual_seed(0)
        trainer = Trainer(opt)
        trainer.model.eval()  # no dropout: the bad passes would draw from the same random numbers
        for module in trainer.model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.train()
        for number in range(4):
            if bad and number in (1, 2):
                spoilt(trainer)
                trainer.optimize_parameters()
            trainer.set_input(batch(4, seed=number))
            trainer.optimize_parameters()
        states.append(trainer.state_dict())
    good, other = states
    for name, value in good["model_state_dict"].items():
        assert torch.equal(value, other["model_state_dict"][name]), name
    for one, two in zip(
        *(s["optimizer_state_dict"]["state"].values() for s in states), strict=True
    ):
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert other["skipped_steps"] == 2


@pytest.mark.parametrize("optim", ("adam", "sgd"))
def test_a_partial_window_can_be_left_out_in_fp16(optim: str) -> None:
    """The step after it is taken, and the loss scale stays."""
    trainer = Trainer(
        TrainOptions(**MULTI, optim=optim, batch_size=4, skip_nonfinite=2, precision="fp16")
    )
    assert trainer.scaler.is_enabled()
    for size in (2, 3, 4):  # two partial windows, as at the ends of two epochs, and a full one
        images, labels = batch(size, size=16)  # 16-bit convolutions are slow on CPUs
        trainer.set_input((images * (NAN if size < 4 else 1), labels))
        before = trainer.model.classifier.weight.detach().clone()
        trainer.optimize_parameters()
        trainer.finish_window()
        assert torch.equal(trainer.model.classifier.weight, before) == (size < 4)
    assert trainer.scaler.get_scale() == 2**16


@pytest.mark.slow
def test_gradients_that_stay_infinite_in_fp16_stop_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainer = Trainer(TrainOptions(**MULTI, batch_size=4, precision="fp16"))
    trainer.model.classifier.weight.register_hook(lambda gradient: gradient * INF)
    with pytest.raises(NonFiniteError, match="step 31: .*gradients .*infinite"):
        for _ in range(40):
            trainer.set_input(batch(4))
            trainer.optimize_parameters()


def test_a_spoilt_model_is_not_saved() -> None:
    trainer = Trainer(TrainOptions(**MULTI))
    with torch.no_grad():
        trainer.model.classifier.weight[0, 0] = INF
    with pytest.raises(NonFiniteError, match="classifier.weight is not finite"):
        trainer.state_dict()


def spoil_step(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> None:
    """Let the batches with these numbers be NaN."""
    real = Trainer.set_input

    def set_input(self: Trainer, data: tuple[torch.Tensor, torch.Tensor]) -> None:
        real(self, (data[0] * NAN if self.step + 1 in numbers else data[0], data[1]))

    monkeypatch.setattr(Trainer, "set_input", set_input)


def test_training_stops_and_names_files_and_checkpoint(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil_step(monkeypatch, 3)  # of 2 per epoch
    with pytest.raises(UserError) as error:
        train.main(train_argv(dataroot, tmp_path, "n", "--niter", "3"))
    folder = only(tmp_path, "n_*")
    message = str(error.value)
    for part in (
        "step 3: the loss is nan",
        ".png and 7 more",
        f"{folder}/model_epoch_last.pth, of step 2",
        "--skip_nonfinite",
    ):
        assert part in message
    assert "\n" not in message
    assert read_checkpoint(folder / "model_epoch_last.pth")["step"] == 2
    named = [
        line for line in (folder / "log.log").read_text().splitlines() if line.startswith("  /")
    ]
    assert len(named) == 8 and all(Path(line.strip()).is_file() for line in named)


def test_training_goes_on_where_steps_may_be_skipped(
    dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resumed training has what is left of the allowance."""
    spoil_step(monkeypatch, 3, 5)
    argv = train_argv(dataroot, tmp_path, "n", "--skip_nonfinite", "1")
    train.main([*argv, "--niter", "2"])
    folder = only(tmp_path, "n_*")
    assert read_checkpoint(folder / "model_epoch_last.pth")["step"] == 4
    assert re.search(r"step 3: .*loss is nan.* \(1 of 1", (folder / "log.log").read_text())
    assert len(scalars(folder / "val")["ap"]) == 2
    with pytest.raises(UserError, match="step 5: the loss is nan"):
        train.main([*argv, "--niter", "3", "--continue_train"])


def test_fp16_asks_a_gpu_for_its_loss_scale_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer makes the next step wait; before a checkpoint it is needed."""
    monkeypatch.setattr("networks.losses.READ_EVERY", 3)
    trainer = Trainer(TrainOptions(**MULTI, batch_size=2, precision="fp16"))
    trainer.guard.at_once = False  # as on a GPU
    asked: list[int] = []
    get_scale = trainer.scaler.get_scale
    monkeypatch.setattr(
        trainer.scaler, "get_scale", lambda: asked.append(trainer.step) or get_scale()
    )
    for _ in range(7):
        trainer.set_input(batch(2, size=16))
        trainer.optimize_parameters()
    assert asked == [3, 6]
    trainer.scaler.update(2.0**-20)
    with pytest.raises(NonFiniteError, match="gradients stay infinite"):
        trainer.state_dict()
