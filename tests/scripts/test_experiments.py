"""The experiment pipeline: what it runs, skips, resumes and reports. A recorder stands in for
Python."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from options.test_options import TestOptions
from options.train_options import TrainOptions
from options.visualize_options import VisualizeOptions

HERE = Path(__file__).resolve().parents[2]
SCRIPT = HERE / "run_multiscale_experiments.sh"
SCALES = {
    "baseline_single_scale": None,
    "multiscale_3scales": (0.25, 0.5, 0.75),
    "ablation_2scales_coarse": (0.25, 0.5),
    "ablation_2scales_fine": (0.5, 0.75),
    "ablation_4scales": (0.2, 0.4, 0.6, 0.8),
    "control_1branch": (0.5,),
    "control_equal_capacity": (0.5, 0.5, 0.5),
}

# Writes what the real commands would write and records its command line. FAKE_FAIL and FAKE_HANG
# are words of a command that fails (a training: after it made its run folder and a checkpoint) or
# waits for Ctrl-C, FAKE_SILENT of one that ends with status 2 before it writes anything.
RECORDER = """#!{python} -ISs
import json, os, shlex, sys, time
argv = sys.argv[1:]
with open(os.environ["FAKE_CALLS"], "a+") as calls:
    calls.write(json.dumps(argv) + "\\n")
    calls.seek(0)
    number = len(calls.readlines())
print("recorded", number, "CUDA_VISIBLE_DEVICES=" + os.environ["CUDA_VISIBLE_DEVICES"])
def value(flag): return argv[argv.index(flag) + 1]
def write(path, text=""):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as file: file.write(text)
def stopped(variable):
    words = os.environ.get(variable, "").split()
    return words and set(words) <= set(argv) | set(map(os.path.basename, argv))
script = os.path.basename(argv[0])
if stopped("FAKE_SILENT"): sys.exit(2)
if script == "train.py" and "--continue_train" not in argv:
    folder = f"{{value('--checkpoints_dir')}}/{{value('--name')}}_2026_01_01_00_00_{{number:02d}}"
    write(folder + "/model_epoch_last.pth")
    write(folder + "/opt.txt", shlex.join(argv) + "\\n--- Options ---\\n")
if stopped("FAKE_HANG"):
    write(os.environ["FAKE_CALLS"] + ".hangs")
    try: time.sleep(300)
    except KeyboardInterrupt: sys.exit("last words")
if stopped("FAKE_FAIL"): sys.exit(3)
if script == "test.py":
    run = os.path.basename(os.path.dirname(value("--model_path")))
    assert os.path.isfile(value("--model_path"))
    folder = value("--results_dir") + "/" + run + "_" + os.path.basename(value("--dataroot"))
    write(folder + "/metrics.json", json.dumps({{"command": shlex.join(argv)}}))
    write(folder + "/predictions.csv")
    write(folder + ".txt")
if script == "visualize_attention.py": write(value("--output_dir") + "/opt.txt", shlex.join(argv))
if "tools.compare_results" in argv: write(value("--output") + "/comparison.md")
"""


class Pipeline:
    """Runs the script in a folder of its own and tells what it called."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls_file = folder, folder / "calls"
        self.calls_file.touch()
        self.python = folder / "recorder of calls"
        self.python.write_text(RECORDER.format(python=sys.executable))
        self.python.chmod(0o755)
        for name in ("train val", "my test"):
            (folder / name).mkdir()
        self.settings = {
            "PYTHON": str(self.python), "DATAROOT": "./train val", "TESTROOT": "./my test", "OUTPUT_DIR": "my output",
            "FAKE_CALLS": str(self.calls_file),
        }  # fmt: skip

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        ours = {
            "EXPERIMENTS",
            "PYTHONPATH",
            "CLASSES",
            *re.findall(r"\b([A-Z_]+)=\$\{\1[:-]", SCRIPT.read_text()),
        }
        return {k: v for k, v in os.environ.items() if k not in ours} | self.settings | settings

    def run(
        self, *arguments: str, status: int = 0, **settings: str
    ) -> tuple[subprocess.CompletedProcess, list[list[str]]]:
        """The finished process, and the command lines that it ran."""
        earlier = len(self.calls())
        done = subprocess.run(
            [str(SCRIPT), *arguments],
            cwd=self.folder,
            env=self.environment(settings),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return done, self.calls()[earlier:]

    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in self.calls_file.read_text().splitlines()]

    def files(self) -> set[str]:
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*")} - {"calls"}


@pytest.fixture
def pipeline(tmp_path):
    return Pipeline(tmp_path)


def value(call: list[str], flag: str) -> str:
    return call[call.index(flag) + 1]


def script(call: list[str]) -> str:
    return "compare" if "tools.compare_results" in call else Path(call[0]).name


def kinds(calls: list[list[str]]) -> list[str]:
    return [script(call) for call in calls]


def compared(call: list[str]) -> list[str]:
    """The runs that a comparison is given, without their time stamps."""
    files = [
        Path(word)
        for word in call[call.index("tools.compare_results") + 1 : call.index("--output")]
    ]
    assert {file.name for file in files} == {"metrics.json"} and len(set(files)) == len(files)
    return [re.sub("_2026.*", "", file.parent.name) for file in files]


ONE = ["train.py", "test.py", "visualize_attention.py"]
TWO_NAMES = "baseline_single_scale multiscale_3scales"
ALL_KINDS = sorted(
    ["train.py"] * 7 + ["test.py"] * 7 + ["visualize_attention.py"] * 6 + ["compare"]
)


def planned(output: str) -> list[list[str]]:
    lines = [line for line in output.splitlines() if line and not line.startswith(("#", "export "))]
    return [shlex.split(line)[1:] for line in lines]


def test_dry_run_shows_everything_and_does_nothing(pipeline):
    before = pipeline.files()
    # the folders need not be there yet, and neither need Python
    done, calls = pipeline.run(
        "--dry-run", DATAROOT="/no/train", TESTROOT="/no/test", PYTHON="/no/python"
    )
    assert calls == [] and pipeline.files() == before and done.stderr == ""
    assert sorted(kinds(planned(done.stdout))) == ALL_KINDS


@pytest.mark.parametrize("seeds", ["1", "3"])
def test_the_plan_is_what_a_run_does(pipeline, seeds):
    plan = planned(pipeline.run("--dry-run", EXPERIMENTS=TWO_NAMES, SEEDS=seeds)[0].stdout)
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES, SEEDS=seeds)
    stamped = re.compile(r"2026_01_01_00_00_\d\d")
    calls = [[stamped.sub("20??_??_??_??_??_??", word) for word in call] for call in calls]
    assert plan == calls and kinds(calls).count("train.py") == 2 * int(seeds)


def test_the_plan_runs_when_pasted_into_a_shell(pipeline):
    plan, seeds = pipeline.run("--dry-run", SEEDS="2")[0].stdout, 2
    subprocess.run(
        ["bash", "-euc", plan],
        cwd=pipeline.folder,
        env=pipeline.environment({}),
        check=True,
        capture_output=True,
    )
    calls = pipeline.calls()
    assert sorted(kinds(calls)) == [ALL_KINDS[0], *sorted(ALL_KINDS[1:] * seeds)]
    assert len(calls[-1][3:-2]) == 7 * seeds
    assert all((pipeline.folder / path).is_file() for path in calls[-1][3:-2]), (
        "a time stamp was not filled in"
    )


def test_every_command_line_is_one_that_the_scripts_accept(pipeline, capsys):
    for split in ("train", "val"):
        (pipeline.folder / "train val" / split).mkdir()
    _, calls = pipeline.run(
        DATAROOT=str(pipeline.folder / "train val"), TESTROOT=str(pipeline.folder / "my test"), GPU_ID="3",
        BATCH_SIZE="7", LR="0.01", EPOCHS="3", DELR_FREQ="2", SEED="5", PRECISION="fp32", NUM_SAMPLES="9",
        EXTRA_TRAIN_ARGS=" --no_flip  --feature_dim 64", EXTRA_TEST_ARGS="--num_threads 1",
    )  # fmt: skip
    parsed = {
        "train.py": TrainOptions(),
        "test.py": TestOptions(),
        "visualize_attention.py": VisualizeOptions(),
    }
    options = [
        (script(call), parsed[script(call)].parse(call[1:]))
        for call in calls
        if script(call) in parsed
    ]
    train = [opt for kind, opt in options if kind == "train.py"]
    assert {opt.name: opt.npr_scales for opt in train} == SCALES
    assert [opt.model_type for opt in train] == ["single_scale"] + ["multiscale_attention"] * 6
    expected = (7, 0.01, 3, 2, 5, "fp32", True, 64, (0,), ("car", "cat", "chair", "horse"))
    for opt in train:
        assert expected == (opt.batch_size, opt.lr, opt.niter, opt.delr_freq, opt.seed, opt.precision, opt.no_flip,
                            opt.feature_dim, opt.gpu_ids, opt.classes)  # fmt: skip
    tests = [opt for kind, opt in options if kind == "test.py"]
    assert all((opt.batch_size, opt.gpu_ids, opt.num_threads) == (7, (0,), 1) for opt in tests)
    shown = [opt for kind, opt in options if kind == "visualize_attention.py"]
    assert all(
        (opt.num_samples, opt.save_npr_maps, opt.gpu_ids) == (9, True, (0,)) for opt in shown
    )
    assert [Path(opt.output_dir).name for opt in shown] == list(SCALES)[1:]
    # the stage's folder of the run that was just trained, in the order of the table
    assert [re.sub(r"_2026.*", "", Path(opt.model_path[0]).parent.name) for opt in tests] == list(
        SCALES
    )
    capsys.readouterr()


def test_a_recipes_own_values_count_unless_a_variable_is_set(pipeline):
    for split in ("train", "val"):
        (pipeline.folder / "train val" / split).mkdir()
    _, calls = pipeline.run(RECIPE="robust", LR="0.5", DATAROOT=str(pipeline.folder / "train val"))
    train = [call for call in calls if script(call) == "train.py"]
    assert len(train) == 7
    for call in train:
        assert (value(call, "--recipe"), value(call, "--lr")) == ("robust", "0.5")
        assert not {"--batch_size", "--niter", "--delr_freq"} & set(call)
        opt = TrainOptions().parse(call[1:], print_options=False)
        assert (opt.lr, opt.lr_schedule, opt.degrade, opt.cropSize) == (0.5, "cosine", 0.3, 128)
    assert all(value(call, "--batch_size") == "32" for call in calls if script(call) == "test.py")


def test_full_run_then_only_the_comparison_again(pipeline):
    done, calls = pipeline.run(GPU_ID="2")
    assert sorted(kinds(calls)) == ALL_KINDS
    assert compared(calls[-1]) == list(SCALES), "baseline first, each once"
    assert value(calls[-1], "--output") == "my output/results/comparison"
    for path in ("my output/results", "my output/visualizations", "my output/results/comparison"):
        assert path in done.stdout
    log = (pipeline.folder / "my output/.experiments/multiscale_3scales.test.log").read_text()
    assert "recorded 4 CUDA_VISIBLE_DEVICES=2" in log and "test.py" in log
    plan, _ = pipeline.run("--dry-run", GPU_ID="2")
    assert (
        kinds(planned(plan.stdout)) == ["compare"] and plan.stdout.count("finished, skipped") == 13
    )
    again, calls = pipeline.run(GPU_ID="2")
    assert kinds(calls) == ["compare"] and again.stdout.count("finished, skipped") == 13


def test_cpu_and_all_classes(pipeline):
    done, calls = pipeline.run(GPU_ID="-1", EXPERIMENTS="control_1branch", CLASSES="")
    flags = zip(calls, ("--gpu_ids", "--gpu_ids", "--gpu_id"), strict=True)
    assert [value(call, flag) for call, flag in flags] == ["-1"] * 3
    assert "CUDA_VISIBLE_DEVICES=-1" in done.stdout and "--classes" not in calls[0]


def test_a_failure_does_not_stop_the_others_and_is_named(pipeline):
    three = TWO_NAMES + " control_1branch"
    done, calls = pipeline.run(status=1, EXPERIMENTS=three, FAKE_FAIL="train.py multiscale_3scales")
    assert kinds(calls) == ["train.py", "test.py", "train.py", *ONE, "compare"]
    assert not any("multiscale_3scales" in word for word in calls[-1])
    assert "FAILED multiscale_3scales: train, exit status 3" in done.stderr.splitlines()[-1]
    done, calls = pipeline.run(EXPERIMENTS=three)
    assert kinds(calls) == [*ONE, "compare"] and value(calls[0], "--name") == "multiscale_3scales"
    assert calls[0][-1] == "--continue_train"


@pytest.mark.parametrize("ignored", [False, True])
def test_an_interrupted_training_is_resumed(pipeline, ignored):
    """By Ctrl-C; behind `nohup ... &`, which ignores it, by SIGTERM."""
    settings = {"FAKE_HANG": "train.py multiscale_3scales", "EXPERIMENTS": TWO_NAMES}
    trap = "trap '' INT; " if ignored else ""
    process = subprocess.Popen(
        ["bash", "-c", f'{trap}exec "$0"', str(SCRIPT)], start_new_session=True, text=True,
        cwd=pipeline.folder, env=pipeline.environment(settings),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not (pipeline.folder / "calls.hangs").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)  # what a terminal does at Ctrl-C
    if ignored:
        time.sleep(0.2)
        assert process.poll() is None
        os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == (143 if ignored else 130), output
    assert "run the same command again" in output and "compare" not in output
    assert ("last words" in output) is not ignored

    plan, _ = pipeline.run("--dry-run", EXPERIMENTS=TWO_NAMES)
    assert [call[-1] for call in planned(plan.stdout) if script(call) == "train.py"] == [
        "--continue_train"
    ]
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES)
    assert kinds(calls) == [*ONE, "compare"] and calls[0][-1] == "--continue_train"
    folders = list((pipeline.folder / "my output/checkpoints").glob("multiscale_3scales_*"))
    assert len(folders) == 1 and value(calls[1], "--model_path").startswith(
        f"my output/checkpoints/{folders[0].name}/"
    )
    assert kinds(pipeline.run(EXPERIMENTS=TWO_NAMES)[1]) == ["compare"]


@pytest.mark.parametrize(
    "changed",
    [{"EPOCHS": "2"}, {"EXTRA_TRAIN_ARGS": "--num_threads 1"}, {"EXTRA_TEST_ARGS": "--robustness"}],
)
def test_other_settings_in_one_folder_are_refused_before_anything_runs(pipeline, changed):
    pipeline.run(EXPERIMENTS="control_1branch")
    done, calls = pipeline.run(status=2, EXPERIMENTS=f"{TWO_NAMES} control_1branch", **changed)
    assert calls == [] and done.stderr.count("\n") == 1
    assert "OUTPUT_DIR=my output" in done.stderr and "set another OUTPUT_DIR" in done.stderr
    done, calls = pipeline.run(EXPERIMENTS="baseline_single_scale", **changed)
    assert kinds(calls) == ONE[:2] and "no comparison" in done.stdout


@pytest.mark.parametrize(
    ("failing", "first", "resumes"),
    # a training that made no run folder is not resumed; a finished one has nothing left to train
    [("FAKE_SILENT=train.py", ["train.py"], False), ("FAKE_FAIL=test.py", ONE, True)],
)
def test_a_failed_step_is_repeated(pipeline, failing, first, resumes):
    variable, words = failing.split("=")
    one = {"EXPERIMENTS": "control_1branch"}
    done, calls = pipeline.run(status=1, **one, **{variable: words})
    assert kinds(calls) == first and "FAILED control_1branch: " in done.stderr
    _, calls = pipeline.run(**one)
    assert kinds(calls) == (ONE[:2] if resumes else ONE)
    assert (calls[0][-1] == "--continue_train") == resumes
    next((pipeline.folder / "my output/results").glob("*/metrics.json")).unlink()
    assert kinds(pipeline.run(**one)[1]) == ONE[:2]


def test_other_settings_of_plots_draw_them_again(pipeline):
    pipeline.run(EXPERIMENTS=TWO_NAMES)
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES, NUM_SAMPLES="7")
    assert kinds(calls) == ["visualize_attention.py", "compare"]


def test_names_that_begin_alike_are_not_confused(pipeline):
    checkpoints = pipeline.folder / "my output/checkpoints"
    decoys = [
        "control_1branch_v2_2027_01_01_00_00_00",
        "control_1branch_2027_01_01",
        "control_1branch_2025_01_01_00_00_00",
    ]
    for decoy in decoys:
        (checkpoints / decoy).mkdir(parents=True)
        (checkpoints / decoy / "model_epoch_last.pth").touch()
    pipeline.run(EXPERIMENTS="control_1branch")
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES)
    assert compared(calls[-1]) == [*TWO_NAMES.split(), "control_1branch"]


def test_seeds_are_runs_of_their_own(pipeline):
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES, SEEDS="3", SEED="8")
    runs = [name + suffix for name in TWO_NAMES.split() for suffix in ("", "_seed9", "_seed10")]
    train = [call for call in calls if script(call) == "train.py"]
    assert [value(call, "--name") for call in train] == runs
    assert [value(call, "--seed") for call in train] == ["8", "9", "10"] * 2
    for of_one in (train[:3], train[3:]):  # nothing else differs between the runs of an experiment
        rest = [[word for word in call if word not in {*runs, "8", "9", "10"}] for call in of_one]
        assert rest[0] == rest[1] == rest[2]
    shown = [call for call in calls if script(call) == "visualize_attention.py"]
    assert [Path(value(call, "--output_dir")).name for call in shown] == runs[3:]
    assert kinds(calls).count("compare") == 1 and compared(calls[-1]) == runs


def test_more_seeds_later_keep_what_is_finished(pipeline):
    pipeline.run(EXPERIMENTS=TWO_NAMES)
    done, calls = pipeline.run(EXPERIMENTS=TWO_NAMES, SEEDS="2")
    assert (
        kinds(calls) == ["train.py", "test.py", *ONE, "compare"]
        and done.stdout.count("finished, skipped") == 3
    )
    assert [value(call, "--seed") for call in calls if script(call) == "train.py"] == ["101", "101"]
    assert not any("--continue_train" in call for call in calls)
    first, second = TWO_NAMES.split()
    assert compared(calls[-1]) == [first, f"{first}_seed101", second, f"{second}_seed101"]
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES, SEEDS="2")
    assert kinds(calls) == ["compare"]
    _, calls = pipeline.run(EXPERIMENTS=TWO_NAMES)
    assert kinds(calls) == ["compare"] and compared(calls[0]) == [first, second]


def test_finished_seeds_of_experiments_that_are_left_out_are_compared_too(pipeline):
    failing = {"FAKE_FAIL": "train.py baseline_single_scale_seed102"}
    pipeline.run(status=1, EXPERIMENTS="baseline_single_scale", SEEDS="3", **failing)
    _, calls = pipeline.run(EXPERIMENTS="control_1branch", SEEDS="3")
    baseline = ["baseline_single_scale", "baseline_single_scale_seed101"]
    controls = ["control_1branch", "control_1branch_seed101", "control_1branch_seed102"]
    assert kinds(calls) == [*ONE * 3, "compare"] and compared(calls[-1]) == baseline + controls


def test_a_folder_called_tools_where_the_caller_is_does_not_shadow_ours(pipeline):
    call = pipeline.run(EXPERIMENTS=TWO_NAMES)[1][-1]
    assert call[1:3] == ["-m", "tools.compare_results"]
    (pipeline.folder / "tools").mkdir()
    (pipeline.folder / "tools" / "__init__.py").touch()
    find = [sys.executable, call[0], "-c", "import tools; print(tools.__file__)"]
    env = pipeline.environment({"PYTHONPATH": str(HERE)})
    found = subprocess.run(
        find, cwd=pipeline.folder, env=env, capture_output=True, text=True
    ).stdout
    assert Path(found.strip()) == HERE / "tools" / "__init__.py"


@pytest.mark.parametrize("settings, variable", [
    ({"DATAROOT": "./missing"}, "DATAROOT=./missing"), ({"TESTROOT": "./missing"}, "TESTROOT=./missing"),
    ({"EXPERIMENTS": "multiscale"}, "EXPERIMENTS"), ({"PYTHON": "no-python-here"}, "PYTHON=no-python-here"),
    ({"OUTPUT_DIR": "calls/x"}, "OUTPUT_DIR=calls/x"), ({"SEED": "x", "SEEDS": "2"}, "SEED=x"),
    *(({"SEEDS": seeds}, f"SEEDS={seeds}") for seeds in ("0", "-1", "abc", "1.5", "2 3", "99999999999999999999")),
])  # fmt: skip
def test_wrong_settings_are_one_line_that_names_the_variable(pipeline, settings, variable):
    before = pipeline.files()
    done, calls = pipeline.run(status=2, **settings)
    assert variable in done.stderr and done.stderr.count("\n") == 1
    assert calls == [] and pipeline.files() == before


def test_unknown_argument_and_help(pipeline):
    done, _ = pipeline.run("--dryrun", status=2)
    assert "--dryrun" in done.stderr and done.stderr.count("\n") == 1
    text = pipeline.run("--help", EPOCHS="17")[0].stdout
    variables = set(re.findall(r"\b([A-Z_]+)=\$\{\1[:-]", SCRIPT.read_text())) - {"OMP_WAIT_POLICY"}
    assert len(variables) >= 13
    for word in [
        *variables,
        "EXPERIMENTS",
        "EXTRA_TRAIN_ARGS",
        "EXTRA_TEST_ARGS",
        "EPOCHS=17",
        "SEEDS=1 ",
        "SEEDS=3 ./run_multiscale_experiments.sh",
        "--dry-run",
        *SCALES,
    ]:
        assert word in text


@pytest.mark.slow
def test_the_real_thing_from_training_to_comparison(tmp_path):
    rng = np.random.default_rng(0)
    for root in ("data/train/car", "data/val/car", "tests/ForenSynths/progan"):
        for label in ("0_real", "1_fake"):
            (folder := tmp_path / root / label).mkdir(parents=True)
            for i in range(4):
                Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(
                    folder / f"{i}.png"
                )
    settings = {
        "PYTHON": sys.executable, "DATAROOT": "data", "TESTROOT": "tests", "OUTPUT_DIR": "out", "GPU_ID": "-1",
        "EPOCHS": "1", "BATCH_SIZE": "4", "CLASSES": "car", "NUM_SAMPLES": "4", "EXPERIMENTS": TWO_NAMES,
        "EXTRA_TRAIN_ARGS": "--num_threads 0 --loadSize 64 --cropSize 56", "EXTRA_TEST_ARGS": "--num_threads 0",
    }  # fmt: skip
    run = [str(SCRIPT)]
    done = subprocess.run(
        run, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    comparison = (tmp_path / "out/results/comparison/comparison.md").read_text()
    assert "baseline: baseline_single_scale" in comparison and "ForenSynths/progan" in comparison
    assert (tmp_path / "out/results/comparison/comparison_auc.png").is_file()
    for name in TWO_NAMES.split():
        (metrics,) = (tmp_path / "out/results").glob(f"{name}_*_tests/metrics.json")
        assert (metrics.parent / "predictions.csv").is_file() and Path(
            f"{metrics.parent}.txt"
        ).is_file()
    assert list(
        (tmp_path / "out/visualizations/multiscale_3scales").rglob("attention_statistics.txt")
    )
    again = subprocess.run(
        run, cwd=tmp_path, env=os.environ | settings, capture_output=True, text=True
    )
    assert again.returncode == 0 and again.stdout.count("finished, skipped") == 3, again.stdout
