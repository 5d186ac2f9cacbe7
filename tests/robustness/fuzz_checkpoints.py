"""Damaged and hostile checkpoints: real ones of every form, and what can happen to their bytes,
archives, pickles and values."""

import copy
import functools
import io
import json
import pickle
import pickletools
import random
import re
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.layouts import find_test_sets
from data.protocols import trained_protocol, training_protocol
from data.transforms import Protocol
from device import seed_everything
from evaluation.testing import run_test
from networks.checkpoint import load_model
from networks.checkpoint_file import save_checkpoint
from networks.factory import too_small
from networks.trainer import Trainer
from options.test_options import TestOptions
from options.train_options import TrainOptions
from tests.conftest import make_set
from tests.robustness.fuzz_engine import Kind, kind_of, require
from tests.robustness.fuzz_images import ANY_BYTES, EXTREMES
from util import UserError, printable

Values = dict[Any, Any]
NO_SCALES = "earlier"
"""Name of files whose scales the command line gives."""
LONGEST = 2000
"""Characters of an error message."""


class Payload:
    """Makes a file called 'owned' in the current folder of temporary files when it is unpickled as
    code."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return Path.touch, (self.target,)


@functools.cache
def forms() -> dict[str, Values]:
    """{name: values} of checkpoints that load: of train.py, of the published code, of the earlier
    multi-scale code."""
    seed_everything(0)
    common = {"gpu_ids": (), "loadSize": 32, "cropSize": 32}
    found: dict[str, Values] = {}
    for name, options in (
        ("single_scale", TrainOptions(**common)),
        (
            "multiscale",
            TrainOptions(
                model_type="multiscale_attention", npr_scales=(0.5,), feature_dim=8, **common
            ),
        ),
    ):
        values = Trainer(options).state_dict() | {"protocol": training_protocol(options).to_dict()}
        found[name] = values | {"val_threshold": 0.4, "val_metrics": {"acc": 0.9, "ap": None}}
    single, multi = (found[name]["model_state_dict"] for name in ("single_scale", "multiscale"))
    return found | {
        "bare": dict(single),
        "published": {"model": single, "total_steps": 7},
        NO_SCALES: {"model_state_dict": multi, "optimizer_state_dict": {}, "epoch": 3, "loss": 0.1},
    }


def write_values(values: Values, path: Path, by_project: bool) -> None:
    """Save values with the project's digest where it can be made, else without."""
    if by_project:
        try:
            return save_checkpoint(path, values)
        except Exception:  # what the project cannot save can still come in a file
            for left in path.parent.iterdir():
                left.unlink()
    try:
        torch.save(values, path)
    except Exception:  # not even PyTorch can save it
        torch.save({key: value for key, value in values.items() if isinstance(value, dict)}, path)


@functools.cache
def files() -> dict[str, bytes]:
    """{name: file} of all forms, and of ways to write them that PyTorch has or had."""
    buffer, found = io.BytesIO(), {}
    for name, values in forms().items():
        torch.save(values, buffer)
        found[name] = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    found["bare, not zipped"] = not_zipped(forms()["bare"])
    return found


def not_zipped(weights: dict[str, Tensor]) -> bytes:
    """The format of PyTorch 0.1.10 to 1.5, with one storage under a fixed name: PyTorch takes
    addresses, and their order."""
    memory = torch.cat([value.float().flatten() for value in weights.values()])
    parts = memory.split([value.numel() for value in weights.values()])
    views = {
        name: part.view(value.shape)
        for (name, value), part in zip(weights.items(), parts, strict=True)
    }
    buffer = io.BytesIO()
    torch.save(views, buffer, _use_new_zipfile_serialization=False)
    return re.sub(
        rb"X[\x08-\x14]\0\0\0\d{8,20}(?=[q\x8a-\x8b(Kr])", text_pickle("0" * 12), buffer.getvalue()
    )


# what can happen to bytes


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """Damage, rather at the beginning and the end, where archives keep what matters, than in the
    weights."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        length = len(data)
        start, end = rng.choice(
            ((0, 3000), (0, 60_000), (length - 12_000, length), (length - 100, length), (0, length))
        )
        start = max(0, start)
        data = data[:start] + rng.choice(ANY_BYTES)(rng, data[start:end]) + data[end:]
    return data


# what can happen to archives

Members = list[tuple[str, bytes]]


def members_of(data: bytes) -> Members:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(members: Members, packing: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return buffer.getvalue()


def damaged_archive(rng: random.Random, data: bytes) -> bytes:
    """Members dropped, doubled, renamed, swapped, damaged, swollen; a compressed archive."""
    members, packing = members_of(data), zipfile.ZIP_STORED
    for _ in range(rng.choice((1, 1, 2))):
        number, other = rng.randrange(len(members)), rng.randrange(len(members))
        if rng.random() < 0.3:
            number = next(
                (n for n, (name, _) in enumerate(members) if name.endswith("data.pkl")), number
            )
        name, content = members[number]
        folder = name.split("/")[0]
        match rng.randrange(9):
            case 0:
                if len(members) > 1:
                    del members[number]
            case 1:
                members.append((name, rng.choice(ANY_BYTES)(rng, content)))
            case 2:
                odd = (
                    "../owned",
                    "/owned",
                    "data.pkl",
                    f"{folder}/data/0",
                    f"{folder}/{'n' * 60_000}",
                    "\x1b[2J\n",
                    "",
                )
                members[number] = (rng.choice(odd), content)
            case 3:
                members[number], members[other] = (
                    (name, members[other][1]),
                    (members[other][0], content),
                )
            case 4:
                members[number] = (name, rng.choice(ANY_BYTES)(rng, content))
            case 5:
                members[number] = (name, content[: rng.randrange(len(content) + 1)])
            case 6:
                packing = rng.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
            case 7:
                odd = (("byteorder", b"big"), ("version", b"99999999999999999999"), ("constants.pkl", b"\x80\x02N."),
                       ("code/owned.py", b"open('owned', 'w')"), (".format_version", b"-1"))  # fmt: skip
                added, text = rng.choice(odd)
                members = [(n, c) for n, c in members if n != f"{folder}/{added}"] + [
                    (f"{folder}/{added}", text)
                ]
            case 8:
                if rng.random() < 0.1:
                    members[number], packing = (name, bytes(700 * 2**20)), zipfile.ZIP_DEFLATED
                else:
                    members[number] = (name, bytes(rng.choice((0, 1, 10**6))))
    return zipped(members, packing)


# what can happen to pickles

GLOBALS = (b"os\nsystem\n", b"builtins\neval\n", b"builtins\ngetattr\n", b"pathlib\nPath.touch\n", b"torch\nload\n",
           b"torch._utils\n_rebuild_parameter\n", b"torch._utils\n_rebuild_sparse_tensor\n", b"torch\nSize\n",
           b"torch._utils\n_rebuild_meta_tensor_no_storage\n", b"torch._utils\n_rebuild_qtensor\n", b"torch\ndevice\n",
           b"torch._utils\n_rebuild_wrapper_subclass\n", b"torch.storage\nUntypedStorage\n", b"torch\nBoolStorage\n",
           b"collections\nOrderedDict\n", b"collections\nCounter\n", b"builtins\nbytearray\n", b"builtins\nset\n")  # fmt: skip


def text_pickle(text: str) -> bytes:
    coded = text.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


def nested_pickle(rng: random.Random) -> bytes:
    """Opcodes of a value that pickling by Python does not make, or not cheaply."""
    deep = rng.choice((10, 900, 5_000, 50_000))
    return rng.choice(
        (
            b"]" * deep + b"a" * (deep - 1),
            b"}" + (text_pickle("k") + b"}") * deep + b"s" * deep,
            b")" + b"\x85" * deep,  # tuples of one within each other
            b"]q\xffh\xffa",  # a list that holds itself
            b"}q\xff" + text_pickle("k") + b"h\xffs",  # a dictionary that does
            b"]q\xc80"
            + b"".join(b"](h\xc8h\xc8eq\xc80" for _ in range(40))
            + b"h\xc8",  # 2**40 lists, all of them a few
            b"\x8a\xff" + b"\xff" * 254 + b"\x7f",  # a whole number of 2,000 bits
            text_pickle("\x1b[2J\n" * 10),
        )
    )


def damaged_pickle(rng: random.Random, data: bytes, target: Path) -> bytes:
    """Opcodes and arguments of an archive's pickle changed; values added to its dictionary; another
    pickle in its place."""
    members = members_of(data)
    number = next(n for n, (name, _) in enumerate(members) if name.endswith("data.pkl"))
    name, content = members[number]
    match rng.randrange(5):
        case 0:
            key = rng.choice(
                (
                    "options",
                    "protocol",
                    "epoch",
                    "loss",
                    "val_threshold",
                    "val_metrics",
                    "model_config",
                    "else",
                )
            )
            added = text_pickle("format") + text_pickle("of others") + b"s"
            content = content[:-1] + added + text_pickle(key) + nested_pickle(rng) + b"s."
        case 1:
            content = rng.choice(
                (
                    pickle.dumps(Payload(target), protocol=2),
                    pickle.dumps({"model_state_dict": Payload(target)}, protocol=rng.randrange(6)),
                    b"cos\nsystem\n" + text_pickle(f"touch {target}") + b"\x85R.",
                    content[:-1]
                    + text_pickle("x")
                    + b"cos\nsystem\n"
                    + text_pickle(f"touch {target}")
                    + b"\x85Rs.",
                    b"\x80\x02" + nested_pickle(rng) + b".",
                    b"\x80\x02}" + text_pickle("model") + nested_pickle(rng) + b"s.",
                )
            )
        case _:
            content = changed_opcodes(rng, content)
    members[number] = (name, content)
    return zipped(members)


def changed_opcodes(rng: random.Random, content: bytes) -> bytes:
    """Opcodes removed, doubled, swapped or replaced; numbers made extreme; other globals."""
    places = [place for _, _, place in pickletools.genops(content)]
    codes = [content[a:b] for a, b in zip(places, [*places[1:], len(content)], strict=True)]
    for _ in range(rng.choice((1, 1, 2, 4))):
        number, other = rng.randrange(len(codes)), rng.randrange(len(codes))
        if rng.random() < 0.3:
            number %= 60
        kind = rng.choice((b"c", b"K", b"M", b"J", b"X"))
        wanted = [n for n, code in enumerate(codes) if code[:1] == kind]
        match rng.randrange(7):
            case 0:
                del codes[number]
            case 1:
                codes.insert(other, codes[number])
            case 2:
                codes[number], codes[other] = codes[other], codes[number]
            case 3:
                codes[number] = (
                    bytes((ord(rng.choice(pickletools.opcodes).code),)) + codes[number][1:]
                )
            case 4 if wanted and kind == b"c":
                codes[rng.choice(wanted)] = b"c" + rng.choice(GLOBALS)
            case 5 if wanted and kind == b"X":
                codes[rng.choice(wanted)] = text_pickle(
                    rng.choice(("", "0", "cuda:0", "meta", "x" * 10**5, "\x1b[2J\n"))
                )
            case _ if wanted and kind in (b"K", b"M", b"J"):
                value = rng.choice((*EXTREMES, -1, -(2**31)))
                codes[rng.choice(wanted)] = b"J" + struct.pack(
                    "<i", (value + 2**31) % 2**32 - 2**31
                )
            case _:
                codes[number] = rng.choice(ANY_BYTES)(rng, codes[number]) or b"0"
    return b"".join(codes)


# what can happen to values

ODD: tuple[Callable[[], Any], ...] = (
    lambda: None, lambda: True, lambda: 0, lambda: 1, lambda: -1, lambda: 3, lambda: 2**31, lambda: 2**63, lambda: 10**4000,
    lambda: 0.0, lambda: 0.5, lambda: 1e-30, lambda: 1e308, lambda: -0.5, lambda: float("nan"), lambda: float("inf"),
    lambda: "", lambda: "0.5", lambda: "single_scale", lambda: "multiscale_attention", lambda: "resnet18", lambda: "vit_h_14",
    lambda: "x" * 10**5, lambda: "two\nlines", lambda: "\x1b[2J", lambda: "\ud800", lambda: b"bytes", lambda: (), lambda: [],
    lambda: {}, lambda: [0.5], lambda: [0.5, 0.25], lambda: ["0.5"], lambda: [None], lambda: [[]], lambda: [0.5] * 10**6,
    lambda: {"name": "x"}, lambda: {1: 2}, lambda: {"x": [[[{}]]]}, lambda: torch.zeros(3), lambda: torch.tensor(0.5),
    lambda: [0.5, 0.5, 0.0], lambda: ["nearest"], lambda: set(), lambda: 1j, lambda: torch.float16,
)  # fmt: skip


def giant() -> Tensor:
    """A tensor of 4 TB in one number's memory."""
    return torch.zeros(1).as_strided((10**6, 10**6), (0, 0))


def odd_weight(rng: random.Random, old: Tensor) -> Any:
    """Something in place of a weight; of one that is odd already, zeros."""
    plain = (
        old.dtype == torch.float32
        and old.layout == torch.strided
        and old.is_cpu
        and old.is_contiguous()
    )
    old = old if plain and 0 < old.numel() < 2**24 else torch.zeros(3)
    spoilt = old.clone()
    spoilt.view(-1)[rng.randrange(spoilt.numel())] = rng.choice(
        (torch.nan, torch.inf, -torch.inf, 3e38, 1e30)
    )
    return rng.choice(
        (
            lambda: spoilt, lambda: spoilt, lambda: spoilt, giant, lambda: old.double(), lambda: old.half(), lambda: old.long(),
            lambda: old.to(torch.complex64), lambda: old.bool(), lambda: old.bfloat16(), lambda: old.to("meta"),
            lambda: old.float().to_sparse(), lambda: torch.nn.Parameter(old.float()), lambda: old.new_zeros(()).expand_as(old),
            lambda: old.new_zeros(0), lambda: old.new_zeros(()), lambda: old[None], lambda: old.flatten().flip(0),
            lambda: torch.quantize_per_tensor(old.float(), 0.1, 0, torch.qint8), lambda: old.tolist(), lambda: None,
            lambda: old.float() * 1e20, lambda: -old, lambda: torch.zeros(2**24).as_strided(old.shape, old.stride()),
        )
    )()  # fmt: skip


def places_in(values: Any, depth: int = 4) -> list[tuple[Any, Any]]:
    """(container, key) of all values in nested dictionaries and lists, weights left out."""
    if depth == 0 or not isinstance(values, dict | list):
        return []
    pairs = list(values.items() if isinstance(values, dict) else enumerate(values))[:60]
    inner = [
        place
        for key, value in pairs
        if key not in ("model_state_dict", "model")
        for place in places_in(value, depth - 1)
    ]
    return [(values, key) for key, _ in pairs] + inner


def odd_values(rng: random.Random, values: Values) -> Values:
    """Metadata of other types, missing, added, exchanged; weights that are none."""
    values = copy.deepcopy(
        {key: value for key, value in values.items() if not isinstance(value, Tensor)}
    ) | {key: value for key, value in values.items() if isinstance(value, Tensor)}
    important = [
        values[key] for key in ("model_config", "protocol") if isinstance(values.get(key), dict)
    ]
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if rng.random() < 0.35:
            weights = next(
                (
                    values[key]
                    for key in ("model_state_dict", "model")
                    if isinstance(values.get(key), dict)
                ),
                values,
            )
            names = [name for name, value in weights.items() if isinstance(value, Tensor)]
            if not names:
                continue
            name = rng.choice(names)
            match rng.randrange(8):
                case 0:
                    del weights[name]
                case 1:
                    odd = (
                        "extra",
                        "two\nlines",
                        "\x1b[2J",
                        5,
                        None,
                        "feature_branches.",
                        "feature_branches.9.x",
                        "n" * 10**5,
                    )
                    weights[rng.choice(odd)] = weights[name]
                case _:
                    weights[name] = odd_weight(rng, weights[name])
            continue
        where = rng.choice(important) if important and rng.random() < 0.6 else values
        if not (places := places_in(where)):
            continue
        container, key = rng.choice(places)
        match rng.randrange(8):
            case 0:
                del container[key]
            case 1 if isinstance(container, dict):
                container[rng.choice(("extra", "name", 7, "\x1b[2J"))] = rng.choice(ODD)()
            case 2:
                others, other = rng.choice(places_in(values))
                if other in (others if isinstance(others, dict) else range(len(others))):
                    container[key] = others[other]
            case _:
                container[key] = rng.choice(ODD)()
    return values


# cases


def write_checkpoint(seed: int, number: int, folder: Path) -> Path:
    """The file of a case: the undamaged ones first, then damaged ones."""
    names, values = list(files()), list(forms())
    if number < len(names) + len(values):
        name = (names + values)[number]
        path = folder / f"{name}.pth"
        if number < len(names):
            path.write_bytes(files()[name])
        elif name in ("single_scale", "multiscale"):
            save_checkpoint(path, forms()[name])
        else:
            torch.save(forms()[name], path)
        return path
    rng = random.Random(f"checkpoint {seed} {number}")
    way = rng.choice(("bytes", "archive", "pickle", "values", "values", "values", "pickle"))
    name = rng.choice(names if way == "bytes" else values)
    path = folder / f"{name}.pth"
    if way == "values":
        write_values(odd_values(rng, forms()[name]), path, by_project=rng.random() < 0.8)
        return path
    path = folder / f"{name if way != 'bytes' or rng.random() < 0.5 else 'model_epoch_last'}.pth"
    data = files()[name]
    if way == "bytes" and rng.random() < 0.05:
        data = rng.choice(
            (tarred(data), b"", b"PK\x03\x04", pickle.dumps(Payload(folder / "owned")))
        )
    elif way == "bytes":
        data = damaged_bytes(rng, data)
    elif way == "archive":
        data = damaged_archive(rng, data)
    else:
        data = damaged_pickle(rng, data, folder / "owned")
    path.write_bytes(data)
    return path


def tarred(data: bytes) -> bytes:
    """The archive that PyTorch wrote before 0.1.10."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = min(len(data), 1000)
            archive.addfile(info, io.BytesIO(data[: info.size]))
    return buffer.getvalue()


def check_checkpoint(path: Path, number: int) -> str:
    """Load a file and use it as test.py does: UserError on one line, or a model that scores
    pictures."""
    torch.set_num_threads(1)
    try:
        return use(path, number)
    except UserError as error:
        text = printable(str(error))  # as `util.run_script` prints it
        require(
            "trust" not in text and "Re-running" not in text and "file an issue" not in text,
            f"advice to run what is in the file: {text}"[:300],
        )
        require(len(text) < LONGEST, f"a message of {len(text)} characters: {text[:200]}")
        require(number >= len(files()) + len(forms()), f"an undamaged file is refused: {text}")
        return f"refused: {kind_of(text.replace(str(path), '').removeprefix('--model_path :').strip())}"


def use(path: Path, number: int) -> str:
    flags = {"npr_scales": (0.5,)} if path.stem == NO_SCALES else {}
    opt = TestOptions(
        model_path=(str(path),), gpu_ids=(), batch_size=4, num_threads=0, bootstrap=0, **flags
    )
    loaded = load_model(path, opt)
    require(isinstance(loaded.name, str), f"a name that is none: {loaded.name!r}")
    protocol = trained_protocol(loaded)
    require(isinstance(protocol, Protocol), f"a protocol that is none: {protocol!r}"[:300])
    images = protocol.normalise(
        torch.arange(2 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(2, 3, 32, 32)
    )
    if too_small(loaded.model, images) is not None:
        return "loaded: its scales are too small for the picture"
    with torch.inference_mode():
        logits = loaded.model(images)
    require(tuple(logits.shape) == (2, 1), f"logits of shape {tuple(logits.shape)}")
    root = path.parent.parent / "pictures"
    if not root.exists():
        make_set(root, 1)
    run = run_test(loaded, *find_test_sets(str(root)), opt)
    json.dumps(run.head)
    if bool(torch.isfinite(logits).all()):
        return "loaded"
    state = loaded.model.state_dict().values()
    require(
        all(bool(torch.isfinite(value).all()) for value in state),
        "a model with weights that are not finite",
    )
    return "loaded: logits overflow"


CHECKPOINTS = Kind(
    "checkpoint", write_checkpoint, check_checkpoint, seconds=40.0, mib=512.0, growth_mib=128.0
)
