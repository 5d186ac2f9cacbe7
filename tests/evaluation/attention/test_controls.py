"""Other attention in place of the learnt one: against networks that are really changed, and cases
with known answers."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.metrics import roc_auc_score
from torch import Tensor

from evaluation.attention.controls import attention_controls, fused_logits, without_scale
from evaluation.attention.relevance import FEWEST_OF_CLASS, choice_per_image, what_matters
from evaluation.scores import Scores
from networks.multiscale_npr import AttentionMultiScaleNPR
from tests.helpers.attended_sets import make_scores

SCALES = (0.25, 0.5, 0.75)


def controls(sets: list[Scores], resamples: int = 300) -> dict[str, Any]:
    """Return the controls, with the conditions by name."""
    result = attention_controls(sets, SCALES, 0.0, False, resamples=resamples)
    return result | {
        "by_name": {condition["name"]: condition for condition in result["conditions"]}
    }


@pytest.mark.parametrize("residual", [False, True])
@torch.no_grad()
def test_controls_are_the_logits_of_a_network_whose_fusion_is_changed(residual: bool) -> None:
    torch.manual_seed(0)
    model = AttentionMultiScaleNPR(
        scales=SCALES, feature_dim=16, reduction=1, residual=residual
    ).eval()
    images = torch.randn(12, 3, 32, 32) * torch.linspace(0.1, 3, 12)[:, None, None, None]
    model.attention_fusion.attention_net[3].weight.mul_(5)  # attention that is far from uniform
    logits, weights, branches = (part.numpy() for part in model(images, return_branches=True))
    logits, bias, attention = logits[:, 0], model.classifier.bias.item(), torch.from_numpy(weights)
    assert weights.std(axis=0).max() > 0.01
    assert np.allclose(fused_logits(weights, branches, bias, residual), logits, atol=1e-5)

    def logits_with(attention: Tensor, branches: list[int]) -> NDArray:
        """Return the network's logits with other attention over some of the branches."""

        def fuse(_module: Any, inputs: Any, output: Any) -> tuple[Tensor, Tensor]:
            features = torch.stack(list(inputs[0]), dim=1)[:, branches]
            fused = (attention[..., None] * features).sum(1)
            return fused + (features.mean(1) if residual else 0), output[1]

        handle = model.attention_fusion.register_forward_hook(fuse)
        try:
            return model(images)[:, 0].double().numpy()
        finally:
            handle.remove()

    expected = {
        "uniform": logits_with(torch.full_like(attention, 1 / 3), [0, 1, 2]),
        "mean": logits_with(attention.mean(0).expand_as(attention), [0, 1, 2]),
    }
    for position, scale in enumerate(SCALES):
        others = [branch for branch in range(3) if branch != position]
        kept = attention[:, others] / attention[:, others].sum(1, keepdim=True)
        expected[f"without_{scale}"] = logits_with(kept, others)
        expected[f"only_{scale}"] = logits_with(torch.ones(12, 1), [position])
    labels, halves = np.arange(12) % 2, (slice(0, 6), slice(6, None))
    sets = [
        make_scores(str(i), "s", labels[rows], logits[rows], weights[rows], branches[rows])
        for i, rows in enumerate(halves)
    ]
    conditions = attention_controls(sets, SCALES, bias, residual, resamples=0)["conditions"]
    by_name = {condition["name"]: condition for condition in conditions}
    assert set(by_name) == {*expected, "shuffled_within", "shuffled_across"}
    for name, changed in expected.items():
        change, condition = changed - logits, by_name[name]
        assert condition["logit_change"] == pytest.approx(np.abs(change).mean(), abs=1e-5), name
        for label, kind in enumerate(("real", "fake")):
            signed = change[labels == label].mean()
            assert condition[f"logit_change_{kind}"] == pytest.approx(signed, abs=1e-5), name
        aucs = [roc_auc_score(labels[rows], changed[rows]) for rows in halves]
        assert condition["auc"] == pytest.approx(np.mean(aucs)), name
        assert [part["auc"] for part in condition["by_generator"]] == pytest.approx(aucs)
        moved = [np.abs(change[rows]).mean() for rows in halves]
        of_parts = [part["logit_change"] for part in condition["by_generator"]]
        assert of_parts == pytest.approx(moved, abs=1e-5)


def test_weights_without_a_scale() -> None:
    weights = np.array([[0.5, 0.25, 0.25], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
    assert np.allclose(without_scale(weights, 0), [[0.5, 0.5], [0.2, 0.8], [0.5, 0.5]])
    assert np.allclose(without_scale(weights, 2), [[2 / 3, 1 / 3], [0, 1], [1, 0]])


Weights = Callable[[np.random.Generator, NDArray], NDArray]


def drawn(rng: np.random.Generator, labels: NDArray) -> NDArray:
    return rng.dirichlet(np.ones(3), len(labels))


def three_sets(weights: Weights, signal: Any, seed: int = 0, images: int = 400) -> list[Scores]:
    """Return generators whose branches have the mean -signal for real and signal for fake images.

    Args:
        weights: (random numbers, labels) -> attention.
        signal: [3], or [3, 3] for each generator.
        seed: of all numbers.
        images: of each generator.
    """
    sets, labels = [], np.arange(images) % 2
    for index, strength in enumerate(np.broadcast_to(signal, (3, 3))):
        rng = np.random.default_rng([seed, index])
        branches = (2 * labels[:, None] - 1) * strength + rng.normal(0, 1, (images, 3))
        sets.append(make_scores(f"g{index}", "s", labels, labels, weights(rng, labels), branches))
    return sets


@pytest.mark.parametrize("seed", range(2))
def test_attention_that_chooses_the_right_branch_helps(seed: int) -> None:
    sets, rng = [], np.random.default_rng(seed)
    for scored in three_sets(drawn, 0, seed):
        right = rng.integers(0, 3, len(scored.labels))
        branches = scored.branch_logits + (4 * scored.labels - 2)[:, None] * np.eye(3)[right]
        weights = 0.1 + 0.7 * np.eye(3)[right]
        sets.append(
            make_scores(scored.generator, "s", scored.labels, scored.scores, weights, branches)
        )
    result = controls(sets)
    assert result["attention"] == result["per_image"] == "helps"
    assert abs(result["per_generator"]["change"]) < 0.03  # generators are alike
    for name in ("uniform", "mean", "shuffled_within", "shuffled_across", "only_0.5"):
        condition = result["by_name"][name]
        assert condition["matters"] == "helps", name
        assert condition["low"] <= condition["change"] <= condition["high"] < 0


def test_shuffling_within_generators_keeps_what_depends_on_the_generator() -> None:
    """Each generator's images are told by one branch, to which its attention goes."""
    sets = [
        make_scores(
            scored.generator, "s", scored.labels, scored.scores,
            np.tile(0.05 + 0.85 * np.eye(3)[index], (400, 1)), scored.branch_logits,
        )
        for index, scored in enumerate(three_sets(drawn, np.eye(3)))
    ]  # fmt: skip
    result = controls(sets)
    by_name, per_generator = result["by_name"], result["per_generator"]
    assert by_name["shuffled_within"]["change"] == pytest.approx(0, abs=1e-12)
    assert by_name["shuffled_across"]["matters"] == by_name["mean"]["matters"] == "helps"
    assert result["per_image"] == "no" and per_generator["matters"] == "helps"
    difference = by_name["shuffled_across"]["change"] - by_name["shuffled_within"]["change"]
    assert per_generator["change"] == pytest.approx(difference)
    assert per_generator["low"] < difference < per_generator["high"]
    assert per_generator["sentence"].endswith("that attention differs between generators helps")
    assert controls(sets[:1])["per_generator"] is None


@pytest.mark.parametrize(
    ("mean", "within", "expected"),
    [("helps", "helps", "helps"), ("helps", "harms", "harms"), ("harms", "helps", "harms"),
     ("no", "helps", "no"), ("helps", "no", "no"), ("helps", "unclear", "unclear"),
     ("unclear", "no", "unclear"), (None, None, None)],
)  # fmt: skip
def test_two_controls_decide_about_the_choice_per_image(
    mean: str, within: str, expected: str
) -> None:
    assert choice_per_image(mean, within) == expected


@pytest.mark.parametrize(
    ("low", "high", "images", "matters"),
    [(-0.004, 0.004, 50, "no"), (-0.02, -0.01, 50, "helps"), (0.01, 0.02, 50, "harms"),
     (-0.02, 0.01, 50, "unclear"), (0.01, 0.02, FEWEST_OF_CLASS, "harms"),
     (0.01, 0.02, FEWEST_OF_CLASS - 1, "unclear"), (None, None, 50, None)],
)  # fmt: skip
def test_an_interval_decides_what_matters(
    low: float | None, high: float | None, images: int, matters: str | None
) -> None:
    assert what_matters(low, high, images) == matters


@pytest.mark.parametrize(("images", "matters"), [(38, "unclear"), (200, "unclear"), (1400, "no")])
def test_perfect_ranking_of_few_images_does_not_tell_what_matters(
    images: int, matters: str
) -> None:
    """All resamples have an AUC of 1 with any weights: what is rarer than one in some hundred
    images has not been seen."""
    rng, labels = np.random.default_rng(0), np.arange(images) % 2
    branches = 10 * labels[:, None] - 5 + rng.normal(0, 1, (images, 3))
    weights = rng.dirichlet((300, 300, 300), images)
    result = controls([make_scores("g", "s", labels, labels, weights, branches)])
    uniform, mean = (result["by_name"][name] for name in ("uniform", "mean"))
    assert result["auc"] == 1 and result["attention"] == mean["matters"] == matters
    assert -uniform["low"] == uniform["high"] == pytest.approx(min(1, 6 / images))
    few = f"fewer than {FEWEST_OF_CLASS} of a class"
    assert (few in result["sentence"]) == (images < 2 * FEWEST_OF_CLASS)


def test_images_of_several_sets_count_once_towards_the_fewest() -> None:
    labels, names = np.repeat([0, 1], (15, 40)), [f"real{i}" for i in range(15)]
    sets = []
    for index in range(3):
        rng, paths = np.random.default_rng(index), (*names, *(f"{index}_{i}" for i in range(40)))
        branches = rng.normal(0, 1, (55, 3)) + labels[:, None]
        sets.append(
            make_scores(str(index), "s", labels, labels, drawn(rng, labels), branches, paths)
        )
    assert {condition["matters"] for condition in controls(sets)["conditions"]} == {"unclear"}


def test_repeated_scales_have_labels_and_a_seed_decides() -> None:
    sets = three_sets(drawn, [1, 0, 0], images=60)
    result = attention_controls(sets, (0.5, 0.5, 0.25), 0.1, False, 0, 20)
    assert result == attention_controls(sets, (0.5, 0.5, 0.25), 0.1, False, 0, 20)
    labels = {condition["name"]: condition["label"] for condition in result["conditions"]}
    assert labels["without_0.5_2"] == "without 0.5x #2" and labels["only_0.25"] == "only 0.25x"
    sentences = {condition["name"]: condition["sentence"] for condition in result["conditions"]}
    assert sentences["without_0.5_2"].startswith("taking scale 0.5x #2 away")


def test_intervals_hold_the_true_change_about_as_often_as_they_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Branches of equal strength: the AUC of uniform weights over that of one branch is known."""
    monkeypatch.setattr("evaluation.attention.controls.SHUFFLES", 1)
    truth = norm.cdf(0.5 * 2 / np.sqrt(2 / 3)) - norm.cdf(0.5 * 2 / np.sqrt(2))
    inside = 0
    for seed in range(60):
        first = lambda rng, labels: np.tile([1.0, 0, 0], (len(labels), 1))  # noqa: E731
        uniform = controls(three_sets(first, 0.5, seed, 100), 200)["by_name"]["uniform"]
        inside += uniform["low"] <= truth <= uniform["high"]
    assert 50 <= inside <= 60  # binomial(60, 0.95) but for the few resamples


def test_without_intervals_classes_or_branches() -> None:
    scored = three_sets(drawn, 0)[0]
    fakes = scored.take(scored.labels == 1).take(np.arange(5))
    result = attention_controls([fakes], SCALES, 0, False)
    assert result["auc"] is result["attention"] is result["per_image"] is None
    assert result["generators"] == 0 and result["conditions"][0]["logit_change_real"] is None
    assert result["sentence"].endswith("so there is no AUC")
    few = scored.take(np.array([0, 1, 3]))
    result = attention_controls([fakes, few], SCALES, 0, True)
    assert result["generators"] == 1 and result["low"] is None
    assert "too few images" in result["sentence"]
    without = make_scores("a", "s", few.labels, few.scores, few.attention)
    with pytest.raises(ValueError, match="branch logits"):
        attention_controls([without], SCALES, 0, False)
    ones, branch = np.ones((400, 1)), scored.branch_logits[:, :1]
    single = make_scores("a", "s", scored.labels, scored.scores, ones, branch)
    names = [c["name"] for c in attention_controls([single], (0.5,), 0, False, 0, 20)["conditions"]]
    assert names == ["uniform", "mean", "shuffled_within", "shuffled_across"]
