"""Options of predict.py."""

import dataclasses
import os
from typing import ClassVar

from options.base_options import RunOptions
from options.flags import flag, number, whole

FORMATS = ("table", "jsonl", "csv")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictOptions(RunOptions):
    """Options of a prediction; `PredictOptions().parse()` reads the command line."""

    description: ClassVar[str] = "Predict whether images and videos are real or generated."
    examples: ClassVar[str] = """examples:
  an image, a folder with all its subfolders, and a pattern, with the shipped detector:
    python predict.py photo.jpg ./photos "./more/**/*_final.png"
  a list of paths from another program, as JSON lines:
    find . -name "*.webp" -print0 | python predict.py --model_path M.pth --null --format jsonl -
  a spreadsheet, and a panel for each image with its residuals, attention and evidence:
    python predict.py --model_path M.pth ./photos --format csv --output p.csv --explain ./panels
  a video, four frames of each second:
    python predict.py --model_path M.pth --fps 4 --max_frames 1000 clip.mp4

exit status:
  0 every file was scored           1 some were scored, others skipped, each named with the reason
  2 nothing was scored: wrong command line, checkpoint or output, no file, or all files skipped
  130, 143 stopped by Ctrl-C or SIGTERM; the predictions until then have been written
"""

    paths: tuple[str, ...] = flag(
        (),
        "files, folders (with all subfolders), quoted patterns such as 'a/**/*.png', or - for a"
        " list of paths on standard input",
        nargs="*",
        metavar="PATH",
        positional=True,
    )
    model_path: str | None = flag(
        None,
        "checkpoint (or a folder that tools.export wrote), or a quoted glob pattern that matches"
        " one (default: the shipped detector, pretrained/)",
        metavar="CHECKPOINT",
    )
    protocol: str | None = flag(
        None,
        "preprocessing protocol, see test.py --list_protocols (default: the one that the"
        " checkpoint is calibrated for, else native size)",
    )
    format: str = flag(
        "table",
        "table = for people; jsonl = one JSON object per line; csv = comma-separated values",
        choices=FORMATS,
    )
    output: str | None = flag(
        None,
        "new file for the predictions, named FILE.partial until it is complete (default: standard"
        " output)",
    )
    explain: str | None = flag(
        None,
        "empty folder for a panel per image (residuals, attention, evidence) and a report per"
        " video",
    )
    overwrite: bool = flag(
        False,
        "replace the file of --output; write into an --explain folder that is not empty, replacing"
        " files of the same name",
    )
    null: bool = flag(
        False,
        "with -: paths in the list end with a NUL byte instead of a line break, as from"
        " find -print0",
    )
    num_threads: int = flag(8, "threads that decode images; fewer need less memory", parse=whole(1))
    fps: float = flag(1.0, "frames to predict per second of video", parse=number(above=0))
    max_frames: int = flag(
        300, "largest number of frames to predict per video, evenly spaced", parse=whole(1)
    )

    def problem(self) -> str | None:
        """Return the error of a combination of flags, None if it is valid."""
        if not self.paths:
            return (
                "argument PATH: missing; pass files, folders, quoted patterns, or - for a list on"
                " standard input"
            )
        if self.paths.count("-") > 1:
            return "argument PATH -: given twice; pass it once, there is one standard input"
        if self.null and "-" not in self.paths:
            return "argument --null: without effect; pass PATH -, whose list it separates"
        if self.overwrite and self.output is None and self.explain is None:
            return "argument --overwrite: without effect; pass --output or --explain, too"
        for path in self.paths:
            if path.endswith((".pth", ".pt", ".safetensors")):
                return (
                    f"argument PATH {path}: is a checkpoint; pass it to --model_path, and put glob"
                    " patterns in quotes"
                )
        if self.output is not None and os.path.realpath(self.output) in map(
            os.path.realpath, self.paths
        ):
            return f"argument --output {self.output}: is also an input; pass another file"
        return None
