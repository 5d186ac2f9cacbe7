"""Other attention in place of the learnt one: against networks that are really changed, and cases
with known answers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor

from evaluation.attention.controls import attention_controls, fused_logits, without_scale
from evaluation.attention.relevance import FEWEST_OF_CLASS, choice_per_image, what_matters
from evaluation.scores import Scores
from networks.multiscale_npr import AttentionMultiScaleNPR
from tests.helpers.attended_sets import make_scores

SCALES = (0.25, 0.5, 0.75)


def controls(
    sets: list[Scores], resamples: int = 300, scales: tuple[float, ...] = SCALES, **more: object
) -> dict:
    found = attention_controls(
        sets, scales, 0.0, bool(more.pop("residual", False)), resamples=resamples, **more
    )
    return found | {"by_name": {one["name"]: one for one in found["conditions"]}}


@pytest.mark.parametrize("residual", [False, True])
@torch.no_grad()
def test_controls_are_the_logits_of_a_network_whose_fusion_is_changed(residual: bool) -> None:
    torch.manual_seed(0)
    model = AttentionMultiScaleNPR(
        scales=SCALES, feature_dim=16, reduction=1, residual=residual
    ).eval()
    images = torch.randn(12, 3, 32, 32) * torch.linspace(0.1, 3, 12)[:, None, None, None]
    labels = np.arange(12) % 2
    model.attention_fusion.attention_net[3].weight.mul_(5)  # attention that is far from uniform
    logits, weights, branches = (part.numpy() for part in model(images, return_branches=True))
    bias = model.classifier.bias.item()
    assert weights.std(axis=0).max() > 0.01
    assert np.allclose(fused_logits(weights, branches, bias, residual), logits[:, 0], atol=1e-5)

    def changed(fuse: Callable[[Tensor], Tensor]) -> NDArray:
        """Logits with another fusion of the features [B, S, D]."""
        handle = model.attention_fusion.register_forward_hook(
            lambda module, inputs, output: (fuse(torch.stack(list(inputs[0]), dim=1)), output[1])
        )
        try:
            return model(images)[:, 0].double().numpy()
        finally:
            handle.remove()

    attention = torch.from_numpy(weights)

    def with_attention(other: Tensor) -> NDArray:
        return changed(lambda f: (other[..., None] * f).sum(1) + (f.mean(1) if residual else 0))

    def with_branches(kept: list[int]) -> NDArray:
        part = attention[:, kept] / attention[:, kept].sum(1, keepdim=True)
        return changed(
            lambda f: (
                (part[..., None] * f[:, kept]).sum(1) + (f[:, kept].mean(1) if residual else 0)
            )
        )

    expected = {
        "uniform": with_attention(torch.full_like(attention, 1 / 3)),
        "mean": with_attention(attention.mean(0).expand_as(attention)),
        **{
            f"without_{scale}": with_branches([i for i in range(3) if i != s])
            for s, scale in enumerate(SCALES)
        },
        **{f"only_{scale}": with_branches([s]) for s, scale in enumerate(SCALES)},
    }
    half = len(labels) // 2
    sets = [
        make_scores(str(g), "s", labels[r], logits[r, 0], weights[r], branches[r])
        for g, r in enumerate((slice(0, half), slice(half, None)))
    ]
    found = attention_controls(sets, SCALES, bias, residual, resamples=0)
    by_name = {one["name"]: one for one in found["conditions"]}
    assert set(by_name) == {*expected, "shuffled_within", "shuffled_across"}
    for name, other in expected.items():
        assert by_name[name]["logit_change"] == pytest.approx(
            np.abs(other - logits[:, 0]).mean(), abs=1e-5
        ), name
        for label, of in enumerate(("real", "fake")):
            signed = (other - logits[:, 0])[labels == label].mean()
            assert by_name[name][f"logit_change_{of}"] == pytest.approx(signed, abs=1e-5), name
        aucs = [roc_auc_score(labels[:half], part) for part in (other[:half], other[half:])]
        assert by_name[name]["auc"] == pytest.approx(np.mean(aucs)), name
        for of_one, part, before in zip(
            by_name[name]["by_generator"],
            (other[:half], other[half:]),
            (logits[:half, 0], logits[half:, 0]),
            strict=True,
        ):
            assert of_one["auc"] == pytest.approx(roc_auc_score(labels[:half], part))
            assert of_one["logit_change"] == pytest.approx(np.abs(part - before).mean(), abs=1e-5)


def test_weights_without_a_scale() -> None:
    weights = np.array([[0.5, 0.25, 0.25], [0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
    assert np.allclose(without_scale(weights, 0), [[0.5, 0.5], [0.2, 0.8], [0.5, 0.5]])
    assert np.allclose(without_scale(weights, 2), [[2 / 3, 1 / 3], [0, 1], [1, 0]])


def made(
    seed: int,
    weights: Callable[[np.random.Generator, NDArray], NDArray],
    signal: NDArray,
    n: int = 400,
) -> list:
    """Three generators whose branch s says signal[label, s] plus noise; weights from labels."""
    sets = []
    for index in range(3):
        rng = np.random.default_rng([seed, index])
        labels = np.arange(n) % 2
        branches = signal[labels] + rng.normal(0, 1, (n, 3))
        sets.append(
            make_scores(f"g{index}", "s", labels, labels * 0.5, weights(rng, labels), branches)
        )
    return sets


def drawn(rng: np.random.Generator, labels: NDArray) -> NDArray:
    return rng.dirichlet(np.ones(3), len(labels))


@pytest.mark.parametrize("seed", range(3))
def test_one_scale_carries_everything(seed: int) -> None:
    always_first = lambda rng, labels: np.tile([0.96, 0.02, 0.02], (len(labels), 1))  # noqa: E731
    found = controls(made(seed, always_first, np.array([[-1, 0, 0], [1, 0, 0]])))["by_name"]
    assert found["without_0.25"]["matters"] == "helps" and found["without_0.25"][
        "auc"
    ] == pytest.approx(0.5, abs=0.07)
    assert found["only_0.25"]["matters"] == "no" and found["without_0.5"]["matters"] == "no"
    assert found["uniform"]["matters"] == "helps"  # the other branches only add noise
    for name in ("mean", "shuffled_within", "shuffled_across"):
        assert (
            found[name]["logit_change"] == pytest.approx(0, abs=1e-12)
            and found[name]["matters"] == "no"
        )
    assert found["without_0.25"]["sentence"].endswith("scale 0.25x helps")


@pytest.mark.parametrize("seed", range(3))
def test_attention_that_is_noise_does_not_help(seed: int) -> None:
    equal = np.array([[-1.0] * 3, [1.0] * 3])
    slightly = lambda rng, labels: rng.dirichlet(np.full(3, 300), len(labels))  # noqa: E731
    found = controls(made(seed, slightly, equal))
    assert found["attention"] == "no"
    assert "the attention does not matter here" in found["sentence"]
    assert controls(made(seed, drawn, equal))["by_name"]["uniform"]["matters"] == "harms"


@pytest.mark.parametrize("seed", range(3))
def test_attention_that_chooses_the_right_branch_helps(seed: int) -> None:
    sets = []
    for one in made(seed, drawn, np.zeros((2, 3))):
        rng = np.random.default_rng(seed)
        right = rng.integers(0, 3, len(one.labels))
        branches = one.branch_logits.copy()
        branches[np.arange(len(right)), right] += 4 * one.labels - 2
        weights = np.where(np.arange(3) == right[:, None], 0.8, 0.1)
        sets.append(
            make_scores(one.generator, one.suite, one.labels, one.scores, weights, branches)
        )
    found = controls(sets)
    assert found["attention"] == found["per_image"] == "helps"
    assert abs(found["per_generator"]["change"]) < 0.03  # generators are alike
    for name in ("uniform", "mean", "shuffled_within", "shuffled_across", "only_0.5"):
        assert found["by_name"][name]["matters"] == "helps", name
        assert (
            found["by_name"][name]["low"]
            <= found["by_name"][name]["change"]
            <= found["by_name"][name]["high"]
            < 0
        )


def test_shuffling_within_generators_keeps_what_depends_on_the_generator() -> None:
    """Each generator's images are told by one branch, to which its attention goes."""
    sets = []
    for index in range(3):
        rng = np.random.default_rng(index)
        labels = np.arange(600) % 2
        branches = rng.normal(0, 0.5, (600, 3)) * 4
        branches[:, index] += 4 * labels - 2
        weights = np.where(np.arange(3) == index, 0.9, 0.05) * np.ones((600, 1))
        sets.append(make_scores(f"g{index}", "s", labels, labels, weights, branches))
    everything = controls(sets)
    found, of_generators = everything["by_name"], everything["per_generator"]
    assert found["shuffled_within"]["change"] == pytest.approx(0, abs=1e-12)
    assert found["shuffled_across"]["matters"] == found["mean"]["matters"] == "helps"
    assert everything["per_image"] == "no" and of_generators["matters"] == "helps"
    difference = found["shuffled_across"]["change"] - found["shuffled_within"]["change"]
    assert (
        of_generators["change"] == pytest.approx(difference)
        and of_generators["low"] < difference < of_generators["high"]
    )
    assert of_generators["sentence"].endswith("that attention differs between generators helps")
    assert controls(sets[:1])["per_generator"] is None


def test_a_choice_per_image_that_is_worse_than_none_harms_though_the_preference_helps() -> None:
    """One branch is better, and has most weight in the mean; around that mean weights are noise."""
    rng, labels = np.random.default_rng(1), np.arange(2000) % 2
    branches = rng.normal(0, 2, (2000, 3))
    branches[:, 0] = rng.normal(0, 1, 2000) + 3 * labels - 1.5
    found = controls(
        [make_scores("g", "s", labels, labels, rng.dirichlet((3.5, 1, 1), 2000), branches)]
    )
    assert found["attention"] == "helps" and found["by_name"]["mean"]["matters"] == "harms"
    assert found["per_image"] == "harms"


@pytest.mark.parametrize(
    ("mean", "within", "expected"),
    [("helps", "helps", "helps"), ("helps", "harms", "harms"), ("harms", "helps", "harms"), ("no", "helps", "no"),
     ("helps", "no", "no"), ("helps", "unclear", "unclear"), ("unclear", "helps", "unclear"), ("no", "unclear", "no"),
     ("unclear", "no", "unclear"), (None, None, None)],
)  # fmt: skip
def test_what_two_controls_say_of_the_choice_per_image(
    mean: str, within: str, expected: str
) -> None:
    assert choice_per_image(mean, within) == expected


@pytest.mark.parametrize(
    ("images", "matters"), [(4, "unclear"), (38, "unclear"), (200, "unclear"), (1400, "no")]
)
def test_perfect_ranking_of_few_images_does_not_tell_what_matters(
    images: int, matters: str
) -> None:
    """All resamples have an AUC of 1 with any weights: what is rarer than one in some hundred
    images has not been seen."""
    rng, labels = np.random.default_rng(0), np.arange(images) % 2
    branches = 10 * labels[:, None] - 5 + rng.normal(0, 1, (images, 3))
    found = controls(
        [make_scores("g", "s", labels, labels, rng.dirichlet((300, 300, 300), images), branches)]
    )
    assert (
        found["auc"] == 1 and found["attention"] == found["by_name"]["mean"]["matters"] == matters
    )
    low, high = found["by_name"]["uniform"]["low"], found["by_name"]["uniform"]["high"]
    assert -low == high == pytest.approx(min(1, 6 / images))
    few = f"fewer than {FEWEST_OF_CLASS} of a class"
    assert (few in found["sentence"]) == (images < 2 * FEWEST_OF_CLASS)


def test_images_of_several_sets_count_once_towards_the_fewest() -> None:
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], (15, 40))
    names = tuple(f"real{i}" for i in range(15))
    sets = []
    for index in range(3):
        branches = rng.normal(0, 1, (55, 3)) + labels[:, None]
        images = (*names, *(f"{index}_{i}" for i in range(40)))
        sets.append(
            make_scores(
                str(index), "s", labels, labels, rng.dirichlet((1, 1, 1), 55), branches, images
            )
        )
    assert {one["matters"] for one in controls(sets)["conditions"]} == {"unclear"}


def test_labels_of_repeated_scales() -> None:
    found = controls(made(0, drawn, np.zeros((2, 3)), n=20), 20, (0.5, 0.5, 0.25))["by_name"]
    assert (
        found["without_0.5_2"]["label"] == "without 0.5x #2"
        and found["only_0.25"]["label"] == "only 0.25x"
    )
    assert found["shuffled_within"]["label"] == "shuffled within"
    assert found["without_0.5_2"]["sentence"].startswith("taking scale 0.5x #2 away")


def test_intervals_hold_the_true_change_about_as_often_as_they_say() -> None:
    """Branches of equal strength: the AUC of uniform weights over that of one branch is known."""
    from scipy.stats import norm

    truth = norm.cdf(0.5 * 2 / np.sqrt(2 / 3)) - norm.cdf(0.5 * 2 / np.sqrt(2))
    one_branch = lambda rng, labels: np.tile([1.0, 0, 0], (len(labels), 1))  # noqa: E731
    inside = 0
    for seed in range(100):
        sets = made(seed, one_branch, np.array([[-0.5] * 3, [0.5] * 3]), n=100)
        found = controls(sets, 200, shuffles=1)["by_name"]["uniform"]
        inside += found["low"] <= truth <= found["high"]
    assert 86 <= inside <= 99  # binomial(100, 0.95) but for the few resamples


def test_what_an_interval_says() -> None:
    assert what_matters(-0.004, 0.004, 50) == "no" and what_matters(-0.02, -0.01, 50) == "helps"
    assert what_matters(0.01, 0.02, 50) == "harms" and what_matters(-0.02, 0.01, 50) == "unclear"
    assert what_matters(0.01, 0.02, FEWEST_OF_CLASS) == "harms"
    assert what_matters(0.01, 0.02, FEWEST_OF_CLASS - 1) == "unclear"
    assert what_matters(None, None, 50) is None


def test_without_intervals_classes_or_branches() -> None:
    (one, *_) = made(0, drawn, np.zeros((2, 3)))
    fakes = make_scores(
        "fakes", "s", np.ones(5, dtype=int), np.ones(5), one.attention[:5], one.branch_logits[:5]
    )
    few = make_scores(
        "few", "s", np.array([0, 1, 1]), np.ones(3), one.attention[:3], one.branch_logits[:3]
    )
    found = attention_controls([fakes], SCALES, 0, False)
    assert found["auc"] is None and found["attention"] is None and found["generators"] == 0
    assert found["per_image"] is None and found["conditions"][0]["logit_change_real"] is None
    assert found["sentence"].endswith("so there is no AUC")
    found = attention_controls([fakes, few], SCALES, 0, True)
    assert (
        found["generators"] == 1 and found["low"] is None and "too few images" in found["sentence"]
    )
    with pytest.raises(ValueError, match="branch logits"):
        attention_controls(
            [make_scores("a", "s", few.labels, few.scores, few.attention)], SCALES, 0, False
        )
    single = make_scores(
        "a", "s", one.labels, one.scores, np.ones((400, 1)), one.branch_logits[:, :1]
    )
    names = {
        c["name"]
        for c in attention_controls([single], (0.5,), 0, False, resamples=50)["conditions"]
    }
    assert names == {"uniform", "mean", "shuffled_within", "shuffled_across"}


def test_the_same_seed_gives_the_same() -> None:
    sets = made(0, drawn, np.array([[-1, 0, 0], [1, 0, 0]]), n=60)
    assert attention_controls(sets, SCALES, 0.1, False, 0, 40) == attention_controls(
        sets, SCALES, 0.1, False, 0, 40
    )
