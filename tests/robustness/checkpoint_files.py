"""Checkpoints of every form that loads, and damaged and hostile ones."""

import functools
import io
import json
import pickle
import pickletools
import struct
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import reject
from hypothesis import strategies as st
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
from tests.robustness.damage import EXTREMES, damaged_bytes, damaged_parts
from tests.robustness.isolation import File
from util import UserError, printable

Values = dict[Any, Any]
Member = tuple[str, bytes]
NO_SCALES = "earlier"
"""Form whose scales the command line gives."""
LONGEST_MESSAGE = 2000


@functools.cache
def forms() -> dict[str, Values]:
    """Return checkpoints that load: of train.py, the published code and the earlier multi-scale
    code."""
    seed_everything(0)
    common = {"gpu_ids": (), "loadSize": 32, "cropSize": 32}
    multiscale = {"model_type": "multiscale_attention", "npr_scales": (0.5,), "feature_dim": 8}
    values: dict[str, Values] = {}
    for name, flags in (("single_scale", common), ("multiscale", common | multiscale)):
        options = TrainOptions(**flags)
        values[name] = Trainer(options).state_dict() | {
            "step": 1,
            "protocol": training_protocol(options).to_dict(),
            "val_threshold": 0.4,
            "val_metrics": {"acc": 0.9, "ap": None},
        }
    single, multi = (form["model_state_dict"] for form in values.values())
    return values | {
        "bare": dict(single),
        "published": {"model": single, "total_steps": 7},
        NO_SCALES: {"model_state_dict": multi, "optimizer_state_dict": {}, "epoch": 3, "loss": 0.1},
    }


@functools.cache
def valid_checkpoints() -> list[File]:
    """Return all forms as PyTorch writes them, ours with a digest, too, and PyTorch's old format."""
    files = [File(f"{name}.pth", saved(values, False)) for name, values in forms().items()]
    ours = [
        File(f"{name}.pth", saved(forms()[name], True)) for name in ("single_scale", "multiscale")
    ]
    buffer = io.BytesIO()
    torch.save(forms()["bare"], buffer, _use_new_zipfile_serialization=False)
    return [*files, *ours, File("not_zipped.pth", buffer.getvalue())]


def saved(values: Values, with_digest: bool) -> bytes:
    if not with_digest:
        buffer = io.BytesIO()
        torch.save(values, buffer)
        return buffer.getvalue()
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder, "a.pth"), values)
        return Path(folder, "a.pth").read_bytes()


class Payload:
    """Makes a file in the current folder when it is unpickled as code."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("owned"),)


def members_of(data: bytes) -> list[Member]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(members: list[Member], packing: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing, compresslevel=1) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, packing)
    return buffer.getvalue()


HOSTILE_NAMES = ("../owned", "/owned", "data.pkl", "archive/data/0", f"archive/{'n' * 60_000}", "\x1b[2J\n", "")  # fmt: skip
HOSTILE_MEMBERS = [
    ("archive/byteorder", b"big"),
    ("archive/version", b"99999999999999999999"),
    ("archive/constants.pkl", b"\x80\x02N."),
    ("archive/code/owned.py", b"open('owned', 'w')"),
    ("archive/.format_version", b"-1"),
]


def damaged_members(member: Member) -> st.SearchStrategy[Member]:
    """Damage the content of an archive's member, or change its name."""
    name, content = member
    contents = damaged_bytes(content) | st.sampled_from((b"", bytes(10**6)))
    names = st.sampled_from(HOSTILE_NAMES)
    return st.tuples(st.just(name), contents) | st.tuples(names, st.just(content))


@st.composite
def damaged_archives(draw: st.DrawFn, data: bytes) -> bytes:
    members = draw(damaged_parts(members_of(data), HOSTILE_MEMBERS, damaged_members))
    stored, packed = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    return zipped(members, draw(st.sampled_from((stored, stored, stored, packed))))


def text_pickle(text: str) -> bytes:
    coded = text.encode()
    return b"X" + struct.pack("<I", len(coded)) + coded


CALL_SYSTEM = b"cos\nsystem\n" + text_pickle("touch owned") + b"\x85R"
GLOBALS = ("os\nsystem", "builtins\neval", "builtins\ngetattr", "pathlib\nPath.touch", "torch\nload", "torch\nSize",
           "torch._utils\n_rebuild_parameter", "torch._utils\n_rebuild_sparse_tensor", "torch\ndevice",
           "torch._utils\n_rebuild_meta_tensor_no_storage", "torch._utils\n_rebuild_qtensor", "torch\nBoolStorage",
           "torch._utils\n_rebuild_wrapper_subclass", "torch.storage\nUntypedStorage", "collections\nOrderedDict",
           "collections\nCounter", "builtins\nbytearray", "builtins\nset")  # fmt: skip
HOSTILE_CODES = {
    "c": [b"c" + name.encode() + b"\n" for name in GLOBALS],
    "X": [text_pickle(text) for text in ("", "0", "cuda:0", "meta", "x" * 10**5, "\x1b[2J\n")],
    "J": [b"J" + struct.pack("<I", value) for value in (*EXTREMES, 2**32 - 1)],
}
"""Opcodes of a pickle by kind: global, text, number."""
NESTED_PICKLES = [
    *(b"]" * deep + b"a" * (deep - 1) for deep in (10, 900, 50_000)),
    *(b"}" + (text_pickle("k") + b"}") * deep + b"s" * deep for deep in (10, 5_000)),
    b")" + b"\x85" * 50_000,  # tuples of one within each other
    b"]q\xffh\xffa",  # a list that holds itself
    b"}q\xff" + text_pickle("k") + b"h\xffs",  # a dictionary that does
    b"]q\xc80" + b"](h\xc8h\xc8eq\xc80" * 40 + b"h\xc8",  # 2**40 lists, all of them a few
    b"\x8a\xff" + b"\xff" * 254 + b"\x7f",  # an integer of 2,000 bits
    text_pickle("\x1b[2J\n" * 10),
    CALL_SYSTEM,
]
HOSTILE_PICKLES = [
    *(pickle.dumps({"model": Payload()}, protocol=protocol) for protocol in range(6)),
    CALL_SYSTEM + b".",
    *(b"\x80\x02" + nested + b"." for nested in NESTED_PICKLES),
    *(b"\x80\x02}" + text_pickle("model") + nested + b"s." for nested in NESTED_PICKLES),
]
METADATA = ("options", "protocol", "epoch", "loss", "val_threshold", "val_metrics", "model_config", "else")  # fmt: skip


@st.composite
def damaged_opcodes(draw: st.DrawFn, content: bytes) -> bytes:
    """Replace opcodes by ones of their kind, which leaves the stack in order, or by any."""
    places = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    codes = [content[start:end] for start, end in zip(places, places[1:], strict=False)]
    kinds = {"c": b"c", "X": b"X", "J": b"KMJ"}
    kind = draw(st.sampled_from([*kinds, "any"]))
    if kind == "any":
        others = sum(HOSTILE_CODES.values(), [])
        return b"".join(draw(damaged_parts(codes, others, damaged_bytes)))
    alike = [place for place, code in enumerate(codes) if code[0] in kinds[kind]]
    codes[draw(st.sampled_from(alike))] = draw(st.sampled_from(HOSTILE_CODES[kind]))
    return b"".join(codes)


@st.composite
def damaged_pickles(draw: st.DrawFn, data: bytes) -> bytes:
    """Damage the pickle of an archive, add a value to it, or put another in its place."""
    (name, content), *rest = members_of(data)
    others = text_pickle("format") + text_pickle("of others") + b"s"  # without a digest
    key, nested = draw(st.sampled_from(METADATA)), draw(st.sampled_from(NESTED_PICKLES))
    added = content[:-1] + others + text_pickle(key) + nested + b"s."
    content = draw(damaged_opcodes(content) | st.just(added) | st.sampled_from(HOSTILE_PICKLES))
    return zipped([(name, content), *rest])


ODD_TEXTS = ("0.5", "single_scale", "multiscale_attention", "resnet18", "vit_h_14", "nearest", "x" * 10**5,
             "two\nlines", "\x1b[2J", "\ud800", "feature_branches.", "feature_branches.9.x")  # fmt: skip
ODD_OBJECTS = (10**4000, b"bytes", set(), 1j, torch.float16, torch.zeros(3), torch.tensor(0.5), [0.5] * 10**6,
               [0.5, 0.5, 0.0], [0.5, 0.25], {1: 2})  # fmt: skip
ODD_KEYS = st.sampled_from(ODD_TEXTS) | st.none() | st.integers(0, 9)
ODD_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(ODD_TEXTS + ODD_OBJECTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ODD_KEYS, inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


@st.composite
def odd_tensors(draw: st.DrawFn, old: Tensor) -> Any:
    """Return something in place of a weight; of one that is odd already, zeros."""
    dense = old.layout == torch.strided and old.is_cpu and old.is_contiguous()
    if not (dense and old.dtype == torch.float32 and 0 < old.numel() < 2**24):
        old = torch.zeros(3)
    one_number = old.clone()
    place = draw(st.integers(0, old.numel() - 1))
    one_number.view(-1)[place] = draw(st.sampled_from((torch.nan, torch.inf, -torch.inf, 3e38)))
    types = (torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64)
    giant = torch.zeros(1).as_strided((10**6, 10**6), (0, 0))  # 4 TB in the memory of a number
    return draw(
        st.sampled_from(types).map(old.to)
        | st.sampled_from([
            one_number, giant, old.to("meta"), old.to_sparse(), torch.nn.Parameter(old),
            old.new_zeros(()).expand_as(old), old.new_zeros(0), old.new_zeros(()), old[None],
            old.flatten().flip(0), torch.quantize_per_tensor(old, 0.1, 0, torch.qint8), old.tolist(), None,
            old * 1e20, -old, torch.zeros(2 * old.numel()).as_strided(old.shape, old.stride()),
        ])
    )  # fmt: skip


def copied(value: Any) -> Any:
    """Copy containers; tensors stay the same, which is faster."""
    if isinstance(value, dict):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


def keys_of(values: Any) -> list[Any]:
    return list(values) if isinstance(values, dict) else list(range(len(values)))


@st.composite
def odd_checkpoints(draw: st.DrawFn, values: Values) -> Values:
    """Remove, add, exchange or replace up to three of the values, at any depth."""
    values = copied(values)
    for _ in range(draw(st.integers(1, 3))):
        important = [
            key
            for key in ("model_config", "protocol", "model_state_dict", "model")
            if key in values
        ]
        if not values:
            break
        key = draw(st.sampled_from(important or list(values)) | st.sampled_from(list(values)))
        container: Any = values
        while (
            isinstance(container[key], dict | list) and container[key] and draw(st.integers(0, 5))
        ):
            container = container[key]
            key = draw(st.sampled_from(keys_of(container)))
        old, odd = container[key], draw(ODD_VALUES)
        change = draw(st.sampled_from(("delete", "add", "exchange", "replace", "replace")))
        if change == "delete":
            del container[key]
        elif change == "add" and isinstance(container, dict):
            container[draw(ODD_KEYS)] = draw(st.sampled_from((old, odd)))
        elif change == "exchange":
            container[key] = values[draw(st.sampled_from(list(values)))]
        else:
            container[key] = draw(odd_tensors(old)) if isinstance(old, Tensor) else odd
    return values  # fmt: skip


@st.composite
def damaged_checkpoints(draw: st.DrawFn) -> File:
    """Damage the values, the pickle, the archive or the bytes of a checkpoint."""
    way = draw(st.sampled_from(("values", "values", "pickle", "pickle", "archive", "bytes")))
    if way == "values":
        name = draw(st.sampled_from(list(forms())))
        values = draw(odd_checkpoints(forms()[name]))
        for with_digest in (draw(st.booleans()), False):
            try:
                return File(f"{name}.pth", saved(values, with_digest))
            except Exception:  # what the project cannot save can still come in a file
                continue
        reject()
    files = valid_checkpoints()
    if way != "bytes":
        files = [file for file in files if file.data.startswith(b"PK")]
    file = draw(st.sampled_from(files))
    if way == "bytes":
        others = (b"", b"PK\x03\x04", pickle.dumps(Payload()))
        data = draw(damaged_bytes(file.data, files[0].data) | st.sampled_from(others))
    else:
        data = draw({"pickle": damaged_pickles, "archive": damaged_archives}[way](file.data))
    return File(file.name, data)


def load_and_test(path: Path) -> str:
    """Load a checkpoint and use it as test.py does.

    Returns:
        'refused: ' and the message of a UserError, or 'loaded' with what became of the logits.
    """
    torch.set_num_threads(1)
    flags = {"npr_scales": (0.5,)} if path.stem == NO_SCALES else {}
    opt = TestOptions(
        model_path=(str(path),), gpu_ids=(), batch_size=4, num_threads=0, bootstrap=0, **flags
    )
    try:
        return use_model(path, opt)
    except UserError as error:
        text = printable(str(error))  # as `util.run_script` prints it
    for advice in ("trust", "Re-running", "file an issue"):
        assert advice not in text, f"advice to run what is in the file: {text[:300]}"
    assert len(text) < LONGEST_MESSAGE, f"a message of {len(text)} characters: {text[:200]}"
    return f"refused: {text}"


def use_model(path: Path, opt: TestOptions) -> str:
    loaded = load_model(path, opt)
    assert isinstance(loaded.name, str)
    protocol = trained_protocol(loaded)
    assert isinstance(protocol, Protocol)
    pixels = torch.arange(2 * 3 * 32 * 32).remainder(251).to(torch.uint8).view(2, 3, 32, 32)
    images = protocol.normalise(pixels)
    if too_small(loaded.model, images) is not None:
        return "loaded: images are too small for its scales"
    with torch.inference_mode():
        logits = loaded.model(images)
    assert tuple(logits.shape) == (2, 1)
    with tempfile.TemporaryDirectory() as folder:
        run = run_test(loaded, *find_test_sets(str(make_set(Path(folder), 1))), opt)
    json.dumps(run.head)
    if bool(torch.isfinite(logits).all()):
        return "loaded"
    for name, weight in loaded.model.state_dict().items():
        assert bool(torch.isfinite(weight).all()), f"{name} is not finite"
    return "loaded: logits overflow"
