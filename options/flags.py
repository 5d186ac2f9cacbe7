"""Command-line flags as typed dataclass fields with help and check; parsers with one-line errors."""

import argparse
import dataclasses
import difflib
import math
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from util import printable

OTHER_NAMES = {
    "init_from": "pretrained pretrainedmodel finetune finetunefrom weights ckpt ckptpath checkpoint"
    " checkpointpath load loadfrom modelpath model loadmodel loadweights pretrainedpath"
    " pretrainedweights frompretrained restore",
    "continue_train": "resume resumefrom resumefromcheckpoint resumepath autoresume continue",
    "model_path": "pretrained pretrainedmodel weights ckpt ckptpath checkpoint checkpointpath load"
    " loadfrom resume model loadmodel loadweights pretrainedpath pretrainedweights initfrom",
    "niter": "epochs nepochs numepochs maxepochs trainepochs iterations",
    "batch_size": "b bs batch trainbatchsize",
    "num_threads": "j workers numworkers nworkers threads",
    "gpu_ids": "device devices gpu gpus gpuid cuda",
    "test_dataroot": "testdir testdata testroot",
    "dataroot": "data datadir datapath dataset datasetpath root traindir input imagedir testdir"
    " testdata testroot testdataroot",
    "results_dir": "output outputdir out outdir savedir results",
    "output_dir": "output out outdir savedir results",
    "output": "outputdir out outdir outfile outputpath o savepath savedir",
    "checkpoints_dir": "output outputdir out outdir savedir savepath logdir",
    "optim": "optimizer opt",
    "lr": "learningrate baselr",
    "lr_schedule": "scheduler lrscheduler sched",
    "delr_freq": "lrdecay lrstep stepsize decayepochs",
    "beta1": "momentum betas",
    "cropSize": "imgsize imagesize imgsz inputsize size resolution patchsize",
    "loadSize": "resize resizesize",
    "precision": "amp fp16 bf16 half mixedprecision dtype",
    "model_type": "arch network",
    "backbone": "arch network",
    "earlystop_epoch": "patience earlystop earlystopping",
    "accumulation_steps": "accumulate gradaccum gradientaccumulation accumiter",
    "loss_freq": "loginterval logfreq printfreq displayfreq",
    "save_epoch_freq": "savefreq saveevery saveinterval checkpointfreq",
    "name": "expname runname experiment project",
    "recipe": "preset config cfg",
    "overwrite": "force existok",
}
"""What other tools call a flag, in small letters without separators."""


def flag(
    default: Any,
    help: str,
    *,
    parse: Callable[[str], Any] | None = None,
    choices: tuple[str, ...] | None = None,
    aliases: tuple[str, ...] = (),
    nargs: str | None = None,
    metavar: str | None = None,
    switch: bool = False,
    positional: bool = False,
) -> Any:
    """Return a dataclass field that is also the command-line flag of the same name.

    Args:
        default: value without the flag; False makes it a switch.
        help: text of --help; the default is added to it.
        parse: text -> value; raises argparse.ArgumentTypeError that says what would be right.
        choices: allowed texts.
        aliases: further spellings, such as '--scales'.
        nargs: as in argparse.
        metavar: name of the value in --help.
        switch: makes a switch of a flag whose default is None.
        positional: written on the command line without the flag's name.
    """
    cli: dict[str, Any] = {
        "help": help,
        "parse": parse,
        "choices": choices,
        "aliases": aliases,
        "nargs": nargs,
        "metavar": metavar,
        "positional": positional,
    }
    cli["switch"] = switch or default is False
    return dataclasses.field(default=default, metadata={"cli": cli})


def add_to_parser(parser: argparse._ActionsContainer, field: dataclasses.Field) -> None:
    """Add one field to an argparse parser.

    The default is not passed on, so that flags on the command line can be told from absent ones.
    """
    cli = field.metadata["cli"]
    names = [f"--{field.name}", *cli["aliases"]]
    shown = (
        ""
        if field.default in (None, False, "", ())
        else f" (default: {shown_value(field.default)})"
    )
    text = (cli["help"] + shown).replace("%", "%%")
    if cli["switch"]:
        parser.add_argument(
            *names, dest=field.name, action="store_true", default=argparse.SUPPRESS, help=text
        )
        return
    keywords: dict[str, Any] = {"default": argparse.SUPPRESS, "help": text}
    for key, value in (
        ("type", cli["parse"]),
        ("choices", cli["choices"]),
        ("nargs", cli["nargs"]),
    ):
        if value is not None:
            keywords[key] = value
    if cli["choices"] is None:
        keywords["metavar"] = cli["metavar"] or (
            field.name.upper() if cli["parse"] is None else "VALUE"
        )
    if cli["positional"]:
        parser.add_argument(field.name, **keywords)
    else:
        parser.add_argument(*names, dest=field.name, **keywords)


def shown_value(value: Any) -> str:
    """Return a value as text for the command line: (0.25, 0.5) -> '0.25,0.5'."""
    return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """Return a parser of whole numbers from minimum to maximum."""
    wanted = f"a whole number from {minimum}" + (f" to {maximum}" if maximum is not None else " up")

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
        if value < minimum or (maximum is not None and value > maximum):
            raise argparse.ArgumentTypeError(f"{value} is not {wanted}")
        return value

    return parse


def resamples(text: str) -> int:
    """Parse a number of bootstrap resamples: 0 for none, else enough for a 95 % interval."""
    value = whole(0, 100_000)(text)
    if 0 < value < 100:
        raise argparse.ArgumentTypeError(
            f"{value} is too few for a confidence interval: pass at least 100, or 0 for none"
        )
    return value


def number(
    above: float = -math.inf, minimum: float = -math.inf, maximum: float = math.inf
) -> Callable[[str], float]:
    """Return a parser of finite numbers with above < x, minimum <= x <= maximum."""
    limits = [
        f"{sign} {limit:g}"
        for sign, limit in ((">", above), (">=", minimum), ("<=", maximum))
        if math.isfinite(limit)
    ]
    wanted = "a number" + (" " + " and ".join(limits) if limits else "")

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}") from None
        if not (math.isfinite(value) and above < value and minimum <= value <= maximum):
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    return parse


def comma_list(item: Callable[[str], Any], at_most: int | None = None) -> Callable[[str], tuple]:
    """Return a parser of a comma-separated list of items."""

    def parse(text: str) -> tuple:
        values = tuple(item(part.strip()) for part in text.split(",") if part.strip())
        if not values or (at_most is not None and len(values) > at_most):
            limit = "" if at_most is None else f" of at most {at_most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a comma-separated list{limit}")
        return values

    return parse


def ends_of_range(item: Callable[[str], Any]) -> Callable[[str], tuple]:
    """Return a parser of one value, or of the lower and upper end of a range."""
    parse_ends = comma_list(item, at_most=2)

    def parse(text: str) -> tuple:
        values = parse_ends(text)
        if values[0] > values[-1]:
            raise argparse.ArgumentTypeError(
                f"{text!r}: the lower end comes first, as in {values[1]},{values[0]}"
            )
        return values

    return parse


def one_of(*known: str) -> Callable[[str], str]:
    """Return a parser of one of the known words, for lists of words."""

    def parse(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(known)}")
        return text

    return parse


def scale(text: str) -> float:
    """Parse one NPR scale."""
    try:
        # Python reads 0.5_2 as 0.52
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a scale: pass numbers between 0 and 1, such as 0.25,0.5,0.75"
        )
    return value


def names(text: str) -> tuple[str, ...]:
    """Parse folder names, 'car,cat'; empty means all."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def gpu_list(text: str) -> tuple[int, ...]:
    """Parse GPU numbers: '0' or '0,1'; '-1' is the CPU, an empty tuple."""
    try:
        ids = tuple(int(part) for part in text.split(","))
    except ValueError:
        ids = ()
        text = text or "''"
        raise argparse.ArgumentTypeError(
            f"{text} is not a list of GPU numbers such as 0 or 0,1 (-1 = CPU)"
        ) from None
    if min(ids) < -1:
        raise argparse.ArgumentTypeError(
            f"{text} is not a list of GPU numbers such as 0 or 0,1 (-1 = CPU)"
        )
    return tuple(i for i in ids if i >= 0)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, exit status 2."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line; unknown words end with the flag that is meant."""
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            self.error(unknown_flag(self, unknown))
        return parsed

    def error(self, message: str) -> NoReturn:
        print(printable(f"{self.prog}: error: {message} (see --help)"), file=sys.stderr)
        sys.exit(2)


def tool_parser(name: str, doc: str | None) -> OneLineParser:
    """Return the parser of a tool, without flags yet, with help from the tool's docstring.

    Args:
        name: of the module in tools/, as in `python -m tools.NAME`.
        doc: docstring of the tool's module. Its text before the first indented line is the
            description in --help; the rest follows the flags as examples.
    """
    description, _, examples = (doc or "").partition("\n\n    ")
    return OneLineParser(
        prog=f"python -m tools.{name}",
        description=description,
        epilog=f"examples:\n    {examples}" if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def unknown_flag(parser: argparse.ArgumentParser, unknown: list[str]) -> str:
    """Return the error for words that no flag takes, with the flag that is meant, if any.

    That is one of the same letters, one that other tools call so, or the one that is most alike.
    """
    word = next((word for word in unknown if word.startswith("-")), unknown[0])
    known = {
        _letters(name): name
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        for name in action.option_strings
    }
    name = _letters(word.split("=")[0])
    others = [flag for flag, names in OTHER_NAMES.items() if name in names.split()]
    alike = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    meant = [known[key] for key in (name, *map(_letters, others), *alike) if key in known]
    return f"unknown argument {word}" + (f"; did you mean {meant[0]}?" if meant else "")


def _letters(name: str) -> str:
    """Return a flag's name without case and separators: '--crop-size' -> 'cropsize'."""
    return name.lower().replace("-", "").replace("_", "")
