"""Predict whether images and videos are real or generated.

python predict.py --model_path ./checkpoints/my_model_*/model_epoch_last.pth photo.jpg ./photos
find . -name "*.webp" -print0 | python predict.py --model_path M.pth --null --format jsonl -

docs/predict.md explains the output.
"""

import sys
from collections.abc import Sequence

from options.predict_options import PredictOptions
from util import run_script, start_logging


def main(argv: Sequence[str] | None = None) -> int:
    """Predict the files; return 0, or 1 if some were skipped."""
    opt = PredictOptions().parse(argv, print_options=False)
    start_logging(stream=sys.stderr)
    # PyTorch takes seconds to import: only now, so that --help and errors come at once
    from inference.predict import predict

    return predict(opt)


if __name__ == "__main__":
    run_script(main)
