"""The user's guide: its commands and snippets, verbatim, on a data set of a few images.

Whole commands and snippets run as they stand there (a training in `make test` for fewer epochs), in
a folder laid out as there; flags and code fragments run inside a small fixture.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from networks.multiscale_npr import (
    AttentionFusionModule,
    AttentionMultiScaleNPR,
    attention_multiscale_npr18,
)
from networks.trainer import Trainer
from options.train_options import TrainOptions
from tests.conftest import REPOSITORY, make_set

CLASSES = ("car", "cat", "chair", "horse")

TRAIN = {
    "my_multiscale_model": """CUDA_VISIBLE_DEVICES=0 python train.py \\
    --name my_multiscale_model \\
    --model_type multiscale_attention \\
    --npr_scales 0.25,0.5,0.75 \\
    --dataroot ./datasets/ForenSynths_train_val \\
    --classes car,cat,chair,horse \\
    --batch_size 32 \\
    --lr 0.0002 \\
    --niter 50""",
    "baseline_single_scale": """CUDA_VISIBLE_DEVICES=0 python train.py \\
    --name baseline_single_scale \\
    --model_type single_scale \\
    --dataroot ./datasets/ForenSynths_train_val \\
    --classes car,cat,chair,horse \\
    --batch_size 32 \\
    --lr 0.0002 \\
    --niter 50""",
    "multiscale_3scales": """CUDA_VISIBLE_DEVICES=0 python train.py \\
    --name multiscale_3scales \\
    --model_type multiscale_attention \\
    --npr_scales 0.25,0.5,0.75 \\
    --dataroot ./datasets/ForenSynths_train_val \\
    --classes car,cat,chair,horse \\
    --batch_size 32 \\
    --lr 0.0002 \\
    --niter 50""",
    "ablation_2scales_coarse": """CUDA_VISIBLE_DEVICES=0 python train.py \\
    --name ablation_2scales_coarse \\
    --model_type multiscale_attention \\
    --npr_scales 0.25,0.5 \\
    --dataroot ./datasets/ForenSynths_train_val \\
    --classes car,cat,chair,horse \\
    --batch_size 32 \\
    --lr 0.0002 \\
    --niter 50""",
}

TEST = """CUDA_VISIBLE_DEVICES=0 python test.py \\
    --model_path ./checkpoints/my_multiscale_model_*/model_epoch_last.pth \\
    --model_type multiscale_attention \\
    --npr_scales 0.25,0.5,0.75 \\
    --batch_size 64"""

VISUALIZE = """python visualize_attention.py \\
    --model_path ./checkpoints/my_multiscale_model_*/model_epoch_last.pth \\
    --dataroot ./datasets/test/stylegan \\
    --output_dir ./visualizations/stylegan \\
    --scales 0.25,0.5,0.75 \\
    --num_samples 100 \\
    --save_npr_maps"""

COMPARE = """import numpy as np

# Read results from output files
baseline_acc = [99.8, 96.3, 97.3, 87.5, 95.0, 99.7, 86.6, 77.4]  # Table 1
multiscale_acc = [99.9, 97.1, 98.0, 89.2, 96.3, 99.8, 88.1, 79.5]  # Your results

# Compute improvement
improvement = np.array(multiscale_acc) - np.array(baseline_acc)
mean_improvement = improvement.mean()

print(f"Mean improvement: {mean_improvement:.2f}%")
print(f"Improved on {(improvement > 0).sum()}/8 generators")"""

HEATMAP = """python -c "
from visualize_attention import plot_attention_heatmap
import torch

# Create comparison heatmap
mean_attentions = {
    'ProGAN': torch.tensor([0.4, 0.4, 0.2]),
    'StyleGAN': torch.tensor([0.3, 0.5, 0.2]),
    'Diffusion': torch.tensor([0.2, 0.3, 0.5]),
}

plot_attention_heatmap(mean_attentions, [0.25, 0.5, 0.75], 'heatmap.png')
\""""

LOADER = (
    'python -c "from data import create_dataloader; from options.train_options import TrainOptions; '
    'opt = TrainOptions().parse(); loader = create_dataloader(opt); print(next(iter(loader)))"'
)

LOAD_CHECKPOINT = """import torch
from networks.multiscale_npr import attention_multiscale_npr18

# Load model
model = attention_multiscale_npr18(num_classes=1, scales=[0.25, 0.5, 0.75])
checkpoint = torch.load('path/to/checkpoint.pth')

# Handle different formats
if 'model_state_dict' in checkpoint:
    model.load_state_dict(checkpoint['model_state_dict'])
else:
    model.load_state_dict(checkpoint)

model.eval()"""


def shell(command: str, folder: Path) -> str:
    """Run a command in a shell whose python is this one; returns its output, fails with its errors."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
    }
    ran = subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's files beside data laid out as in the guide; only `car` has images, one of each
    kind, to be quick."""
    folder = tmp_path_factory.mktemp("checkout")
    for path in REPOSITORY.iterdir():
        if path.suffix in (".py", ".sh") or path.name in (
            "data",
            "evaluation",
            "networks",
            "options",
            "reports",
            "tools",
            "training",
        ):
            (folder / path.name).symlink_to(path)
    train_val = folder / "datasets" / "ForenSynths_train_val"
    for split in ("train", "val"):
        for name in CLASSES:
            make_set(train_val / split / name, 1 if name == "car" else 0, 64)
    make_set(folder / "datasets" / "test" / "stylegan", 3, 64)
    make_set(
        folder / "datasets" / "Generalization_Test" / "ForenSynths_test" / "stylegan" / "car", 2, 64
    )
    make_set(folder / "datasets" / "Generalization_Test" / "Diffusion1kStep" / "ddpm", 2, 64)
    shutil.copytree(train_val, folder / "dataset")
    return folder


@pytest.fixture(scope="module")
def model(checkout: Path) -> Path:
    """The guide's first command, run for fewer epochs."""
    shell(TRAIN["my_multiscale_model"].replace("--niter 50", "--niter 3"), checkout)
    (run,) = (checkout / "checkpoints").glob("my_multiscale_model_*")
    return run / "model_epoch_last.pth"


def test_first_training(model: Path) -> None:
    values = torch.load(model)
    assert values["epoch"] == 3
    assert set(values) >= {"model_state_dict", "optimizer_state_dict", "epoch", "loss"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAIN)
def test_trainings_to_their_end(name: str, checkout: Path, tmp_path: Path) -> None:
    shell(f"{TRAIN[name]} \\\n    --checkpoints_dir {tmp_path}", checkout)
    (run,) = tmp_path.glob(f"{name}_*")
    assert torch.load(run / "model_epoch_last.pth")["epoch"] == 50


def test_testing(model: Path, checkout: Path) -> None:
    output = shell(TEST, checkout)
    assert "Table 1 - ForenSynths" in output and "Table 5 - Diffusion1kStep" in output
    results = checkout / "results" / f"{model.parent.name}_Generalization_Test.txt"
    assert results.read_text() in output


def test_visualizing(model: Path, checkout: Path) -> None:
    shell(VISUALIZE, checkout)
    out = checkout / "visualizations" / "stylegan"
    assert "±" in (out / "attention_statistics.txt").read_text()
    pictures = [out / "attention_distribution.png", *(out / "npr_artifacts").glob("*.png")]
    assert len(pictures) == 7
    assert all(min(Image.open(path).size) > 200 for path in pictures)


def test_pipeline_plan(checkout: Path) -> None:
    plan = shell("./run_multiscale_experiments.sh --dry-run", checkout)
    for name in (
        "baseline_single_scale",
        "multiscale_3scales",
        "ablation_2scales_coarse",
        "ablation_4scales",
    ):
        assert name in plan


def test_comparison_snippet() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", COMPARE], capture_output=True, text=True, check=True
    ).stdout
    assert printed == "Mean improvement: 1.04%\nImproved on 8/8 generators\n"


def test_heatmap_snippet(checkout: Path) -> None:
    shell(HEATMAP, checkout)
    assert Image.open(checkout / "heatmap.png").width > 300


def test_data_loader_snippet(checkout: Path) -> None:
    assert "tensor([" in shell(LOADER, checkout)


def test_loading_snippet(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "path" / "to").mkdir(parents=True)
    shutil.copy(model, tmp_path / "path" / "to" / "checkpoint.pth")
    monkeypatch.chdir(tmp_path)
    scope: dict = {}
    exec(LOAD_CHECKPOINT, scope)
    assert torch.isfinite(scope["model"](torch.zeros(1, 3, 64, 64))).all()


def multi_trainer() -> Trainer:
    trainer = Trainer(
        TrainOptions(model_type="multiscale_attention", feature_dim=16, gpu_ids=(), batch_size=2)
    )
    trainer.set_input((torch.randn(2, 3, 32, 32), torch.tensor([0, 1])))
    return trainer


def test_accumulation_fragment() -> None:
    model = multi_trainer()
    optimizer = model.optimizer
    dataloader = range(4)
    before = model.model.classifier.weight.detach().clone()
    accumulation_steps = 2
    for i, _data in enumerate(dataloader):
        loss = model.get_loss()
        loss = loss / accumulation_steps
        loss.backward()

        if (i + 1) % accumulation_steps == 0:
            optimizer.step()
            optimizer.zero_grad()
    assert not torch.equal(model.model.classifier.weight, before)


def test_attention_check_fragment(capsys: pytest.CaptureFixture) -> None:
    model, val_images = multi_trainer(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        _, attn = model.model(val_images, return_attention=True)
        print(f"Attention weights: {attn.mean(dim=0)}")
    assert "Attention weights: tensor([" in capsys.readouterr().out


def test_feature_dimension_fragment() -> None:
    model = AttentionMultiScaleNPR(feature_dim=256)
    assert model.classifier.in_features == 256


def test_entropy_fragment_is_the_flags_loss() -> None:
    trainer = Trainer(
        TrainOptions(
            model_type="multiscale_attention",
            feature_dim=16,
            gpu_ids=(),
            attention_entropy_weight=0.01,
        )
    )
    trainer.model.eval()
    images, labels = torch.randn(2, 3, 32, 32), torch.tensor([0, 1])
    trainer.set_input((images, labels))
    logits, attn = trainer.model(images, return_attention=True)
    classification_loss = nn.BCEWithLogitsLoss()(logits.squeeze(1), labels.float())
    attention_entropy = -(attn * torch.log(attn + 1e-8)).sum(dim=1).mean()
    loss = classification_loss - 0.01 * attention_entropy
    assert trainer.get_loss().item() == pytest.approx(loss.item(), abs=1e-5)


def test_attention_module_fragments() -> None:
    self = SimpleNamespace()
    self.attention_fusion = AttentionFusionModule(feature_dim=128, num_scales=3, reduction=8)
    features_list = [torch.randn(2, 128) for _ in range(3)]
    base_features, num_scales = torch.randn(2, 128), 3
    fused_by_module, attention_weights = self.attention_fusion.eval()(features_list)
    fused = (1 - attention_weights.sum(dim=1, keepdim=True)) * base_features + sum(
        attention_weights[:, i : i + 1] * features_list[i] for i in range(num_scales)
    )
    assert torch.allclose(fused, fused_by_module, atol=1e-5)  # its residual term is zero


def test_backbone_fragment() -> None:
    from torchvision.models import efficientnet_b0

    model = AttentionMultiScaleNPR(
        scales=(0.5,), backbone=lambda dim: efficientnet_b0(weights=None, num_classes=dim)
    )
    assert model.eval()(torch.randn(1, 3, 64, 64)).shape == (1, 1)


@pytest.mark.parametrize("flags", ("0.6,0.7,0.8,0.9", "0.1,0.2,0.3", "0.2,0.3,0.4,0.5,0.6,0.7"))
def test_scale_examples(flags: str, dataroot: Path) -> None:
    argv = [
        "--dataroot",
        str(dataroot),
        "--model_type",
        "multiscale_attention",
        "--npr_scales",
        flags,
    ]
    opt = TrainOptions().parse([*argv, "--feature_dim", "8"], print_options=False)
    logits, attention = attention_multiscale_npr18(scales=opt.npr_scales, feature_dim=8).eval()(
        torch.randn(1, 3, 224, 224), return_attention=True
    )
    assert attention.shape == (1, len(flags.split(",")))
    assert np.isfinite(logits.item())


def test_single_flags(dataroot: Path) -> None:
    argv = [
        "--dataroot",
        str(dataroot),
        *["--lr", "0.0002", "--batch_size", "16", "--lr", "0.0001"],
    ]
    opt = TrainOptions().parse(argv, print_options=False)
    assert (opt.batch_size, opt.lr) == (16, 0.0001)
