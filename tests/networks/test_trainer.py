"""The trainer: its loss, learning rate, accumulation and state."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data.layouts import find_test_sets
from evaluation.testing import run_test
from networks.checkpoint import load_model
from networks.losses import attention_entropy, cosine_learning_rate, detection_loss, learning_rate
from networks.trainer import Trainer
from options.test_options import TestOptions
from options.train_options import TrainOptions
from training.run import Run
from util import UserError

MULTI = {"model_type": "multiscale_attention", "feature_dim": 16, "gpu_ids": ()}


def batch(count: int, seed: int = 0, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator), torch.arange(count) % 2


def frozen(trainer: Trainer) -> Trainer:
    """BatchNorm in evaluation mode, dropout off: the loss is then a mean over images."""
    trainer.model.eval()
    return trainer


def published_schedule(lr: float, delr_freq: int, epochs: int) -> list[float]:
    """Learning rate of each epoch by the published loop, with its floor held."""
    rates = []
    for epoch in range(epochs):
        rates.append(lr)
        if epoch % delr_freq == 0 and epoch != 0:
            lr = max(lr * 0.9, 1e-6)
    return rates


@pytest.mark.parametrize(("lr", "delr_freq"), [(2e-4, 10), (1e-4, 1), (2e-6, 3)])
def test_learning_rate_is_the_published_schedule(lr: float, delr_freq: int) -> None:
    ours = [learning_rate(lr, delr_freq, epoch) for epoch in range(60)]
    assert ours == pytest.approx(published_schedule(lr, delr_freq, 60))
    assert learning_rate(1e-7, 1, 50) == 1e-7  # below the floor from the start


def test_get_loss_by_hand() -> None:
    trainer = frozen(Trainer(TrainOptions(gpu_ids=())))
    images, labels = batch(6)
    trainer.set_input((images, labels))
    logits = trainer.model(images).detach().double().squeeze(1)
    p = torch.sigmoid(logits)
    expected = -(labels * p.log() + (1 - labels) * (1 - p).log()).mean()
    assert trainer.get_loss().item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 4, 3), (4, 1), (2,)])
def test_accumulated_gradients_equal_those_of_the_large_batch(sizes: tuple[int, ...]) -> None:
    """Also for a partial last window, which is weighted by its images. SGD with lr 1: the step is
    the gradient."""
    opt = TrainOptions(**MULTI, optim="sgd", lr=1.0, batch_size=4, accumulation_steps=3)
    torch.manual_seed(0)
    accumulating = frozen(Trainer(opt))
    large = frozen(Trainer(dataclasses.replace(opt, batch_size=sum(sizes), accumulation_steps=1)))
    large.model.load_state_dict(accumulating.model.state_dict())
    before = [p.detach().clone() for p in large.model.parameters()]
    images, labels = batch(sum(sizes))
    for part in zip(images.split(sizes), labels.split(sizes), strict=True):
        accumulating.set_input(part)
        accumulating.optimize_parameters()
    accumulating.finish_window()
    large.set_input((images, labels))
    large.optimize_parameters()
    for old, one, other in zip(
        before, accumulating.model.parameters(), large.model.parameters(), strict=True
    ):
        assert torch.allclose(old - one, old - other, atol=1e-5)
    assert accumulating.window_empty


def test_no_step_before_the_window_is_full() -> None:
    trainer = Trainer(TrainOptions(**MULTI, batch_size=4, accumulation_steps=2))
    before = trainer.model.classifier.weight.detach().clone()
    trainer.set_input(batch(4))
    trainer.optimize_parameters()
    assert torch.equal(trainer.model.classifier.weight, before)
    assert not trainer.window_empty
    trainer.optimize_parameters()
    assert not torch.equal(trainer.model.classifier.weight, before)


def test_entropy_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]])
    expected = [0.0, np.log(2), -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))]
    assert attention_entropy(weights).tolist() == pytest.approx(expected, abs=1e-6)


def learned_attention(images: int, steps: int = 300, **weights: float) -> torch.Tensor:
    """Attention after training its logits alone, from a slight tilt, with the classification loss
    held constant."""
    tilt = torch.randn(images, 3, generator=torch.Generator().manual_seed(1)) * 0.5
    raw = nn.Parameter(tilt)
    optimizer = torch.optim.Adam([raw], lr=0.05)
    for _ in range(steps):
        loss = detection_loss(
            torch.zeros(images, 1), torch.zeros(images), raw.softmax(1), **weights
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return raw.softmax(1).detach()


def test_entropy_term_of_the_guides_makes_attention_uniform() -> None:
    """Subtracting entropy from the loss does the opposite of curing uniform attention."""
    attention = learned_attention(8, entropy_weight=1.0)
    assert torch.allclose(attention, torch.full_like(attention, 1 / 3), atol=0.02)


def test_diversity_term_makes_attention_differ_between_images_and_use_all_scales() -> None:
    attention = learned_attention(9, diversity_weight=1.0)
    assert attention_entropy(attention).mean() < 0.1
    assert attention_entropy(attention.mean(0)) > 0.9 * np.log(3)


def test_loss_with_both_terms_by_hand() -> None:
    attention = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    logits, labels = torch.tensor([[1.0], [-2.0]]), torch.tensor([1.0, 0.0])

    def entropy(p: np.ndarray) -> float:
        return float(-(p * np.log(p)).sum())

    bce = (np.log1p(np.exp(-1.0)) + np.log1p(np.exp(-2.0))) / 2
    per_image = (entropy(np.array([0.2, 0.8])) + entropy(np.array([0.6, 0.4]))) / 2
    expected = bce - 0.01 * per_image + 0.5 * (per_image - entropy(np.array([0.4, 0.6])))
    assert detection_loss(logits, labels, attention, 0.01, 0.5).item() == pytest.approx(
        expected, rel=1e-5
    )


@pytest.mark.parametrize("model_type", ("single_scale", "multiscale_attention"))
def test_overfits_16_images(model_type: str) -> None:
    torch.manual_seed(0)
    trainer = Trainer(TrainOptions(model_type=model_type, gpu_ids=(), lr=1e-3, batch_size=16))
    trainer.set_input(batch(16))
    trainer.start_epoch(0)
    for _ in range(60):
        trainer.optimize_parameters()
        if trainer.loss < 0.05:
            break
    assert trainer.loss < 0.05


@pytest.mark.parametrize("precision", ("bf16", "auto"))
def test_reduced_precision_trains(precision: str) -> None:
    trainer = Trainer(TrainOptions(**MULTI, precision=precision))
    trainer.set_input(batch(4))
    trainer.optimize_parameters()
    assert torch.isfinite(trainer.loss)
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}


def test_missing_gpu_goes_on_on_the_cpu(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from device import choose_device
    from util import log

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(log, "propagate", True)
    assert choose_device((0,)) == torch.device("cpu")
    assert " CPU" in caplog.text


def test_determinism_does_not_switch_cudnn_off() -> None:
    from device import seed_everything

    seed_everything(0)
    assert torch.backends.cudnn.enabled
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_compile_falls_back_where_it_fails(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> torch.Tensor:
        raise RuntimeError("no C++ compiler")

    from util import log

    monkeypatch.setattr(torch, "compile", lambda model, **_: broken)
    monkeypatch.setattr(log, "propagate", True)
    trainer = Trainer(TrainOptions(gpu_ids=(), compile=True))
    trainer.set_input(batch(2))
    trainer.optimize_parameters()
    assert trainer.step == 1
    assert "going on without compiling" in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("fast", (False, True))
@pytest.mark.parametrize("accumulation_steps", (1, 2))
def test_gpu_learns(fast: bool, accumulation_steps: int) -> None:
    """Also compiled and replayed as CUDA graphs."""
    opt = TrainOptions(
        model_type="multiscale_attention", precision="auto", fast=fast, lr=1e-3, batch_size=4
    )
    trainer = Trainer(dataclasses.replace(opt, accumulation_steps=accumulation_steps))
    trainer.start_epoch(0)
    losses = []
    for _ in range(40):
        trainer.set_input(batch(4))
        trainer.optimize_parameters()
        losses.append(float(trainer.loss))
    assert trainer.device.type == "cuda"
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("sizes", [(4, 4), (4, 2)])
def test_gradient_norms_of_branches_and_attention(sizes: tuple[int, ...]) -> None:
    """Of the whole window, also a partial one: with SGD at learning rate 1, a part moves by its
    norm."""
    trainer = frozen(
        Trainer(TrainOptions(**MULTI, optim="sgd", lr=1.0, batch_size=4, accumulation_steps=2))
    )
    parts = {
        **{
            f"branch_{key}": trainer.model.feature_branches[n]
            for n, key in enumerate(("0.25", "0.5", "0.75"))
        },
        "attention": trainer.model.attention_fusion,
    }
    before = {name: [p.detach().clone() for p in part.parameters()] for name, part in parts.items()}
    trainer.watch_gradients = True
    images, labels = batch(sum(sizes))
    for part in zip(images.split(sizes), labels.split(sizes), strict=True):
        trainer.set_input(part)
        trainer.optimize_parameters()
    trainer.finish_window()
    assert trainer.gradient_norms.keys() == parts.keys()
    for name, part in parts.items():
        moved = sum(
            float((p.detach() - old).square().sum())
            for p, old in zip(part.parameters(), before[name], strict=True)
        )
        assert trainer.gradient_norms[name] == pytest.approx(moved**0.5, rel=1e-3)


def test_cosine_schedule_is_that_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.003)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17)
    for epoch in range(17):
        assert cosine_learning_rate(0.003, 17, epoch) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


def test_schedule_flag_decides(dataroot: Path) -> None:
    options = {"dataroot": str(dataroot), "gpu_ids": (), "lr": 0.01, "niter": 4, "delr_freq": 1}
    rates = {}
    for schedule in ("step", "cosine"):
        trainer = Trainer(TrainOptions(lr_schedule=schedule, **options))
        rates[schedule] = []
        for epoch in range(4):
            trainer.start_epoch(epoch)
            rates[schedule].append(trainer.lr)
    assert rates["step"] == pytest.approx([0.01, 0.01, 0.009, 0.0081])
    assert rates["cosine"] == pytest.approx([0.01, 0.0085355, 0.005, 0.0014645], rel=1e-4)


def test_best_is_the_first_epoch_with_the_highest_ap() -> None:
    trainer = Trainer(TrainOptions(**MULTI))
    best = [trainer.record_validation(ap) for ap in (None, 0.5, 0.5, 0.4, 0.6)]
    assert best == [False, True, False, False, True]
    assert (trainer.best_ap, trainer.epochs_since_best) == (0.6, 0)


LAYOUTS = (torch.channels_last, torch.contiguous_format)


@pytest.mark.parametrize("before", LAYOUTS)
def test_resumes_in_another_memory_layout(
    before: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fp32 on a GPU is contiguous, all else channels last; Adam's moments keep what they had."""

    def trained(layout: torch.memory_format, state: Any, steps: int) -> Trainer:
        monkeypatch.setattr(
            "networks.trainer.place_model", lambda model, *_: model.to(memory_format=layout)
        )
        torch.manual_seed(0)
        trainer = frozen(Trainer(TrainOptions(gpu_ids=(), lr=1e-3, batch_size=4)))
        if state is not None:
            trainer.load_state_dict(state)
        for _ in range(steps):
            trainer.set_input(batch(4))
            trainer.optimize_parameters()
        return trainer

    after = next(layout for layout in LAYOUTS if layout is not before)
    state = trained(before, None, 2).state_dict()
    straight, resumed = trained(before, None, 4), trained(after, state, 2)
    for one, other in zip(straight.model.parameters(), resumed.model.parameters(), strict=True):
        moments, strides = resumed.optimizer.state[other], other.stride()
        assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == strides
        # rounding alone moves vectors near zero by up to a tenth of a step of Adam, which is 1e-3
        bound = 1e-3 * one.norm() if one.ndim == 4 else 0.3 * 1e-3 * one.numel() ** 0.5
        assert (one - other).norm() < bound


@pytest.mark.parametrize("damaged", (torch.zeros(1), torch.zeros(7, 2), "text"))
def test_moments_that_do_not_fit_are_damaged(damaged: Any) -> None:
    opt = TrainOptions(gpu_ids=(), batch_size=4)
    trainer = Trainer(opt)
    trainer.set_input(batch(4))
    trainer.optimize_parameters()
    state = trainer.state_dict()
    state["optimizer_state_dict"]["state"][0]["exp_avg"] = damaged
    with pytest.raises(UserError, match="state of the optimizer .* is damaged") as error:
        Trainer(opt).load_state_dict(state)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("one_size", (True, False))
def test_algorithms_are_tried_out_for_images_of_one_size_only(
    one_size: bool, trained: Path, dataroot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """cuDNN does it again for each size, which takes longer than scoring a few images."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", not one_size)
    options = {"gpu_ids": (), "num_threads": 0, "fast": True, "no_resize": True}
    options |= {"no_crop": True} if not one_size else {"cropSize": 16}
    Run(TrainOptions(dataroot=str(dataroot), batch_size=2, **options), tmp_path).close()
    assert torch.backends.cudnn.benchmark == one_size
    torch.backends.cudnn.benchmark = not one_size
    root, sets = find_test_sets(str(dataroot / "test"))
    run_test(load_model(trained / "model_epoch_last.pth"), root, sets, TestOptions(**options))
    assert torch.backends.cudnn.benchmark == one_size
    torch.use_deterministic_algorithms(deterministic, warn_only=True)
