"""The page: Gradio components, and what happens when someone uses them. Import it only where Gradio
is installed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import processing_utils

from device import NotEnoughMemory, OutOfGpuMemory
from tools.web_demo.answers import Limits, NoAnswer, about, answer, problem, rendered
from tools.web_demo.examples import Example
from tools.web_demo.models import Models
from util import UserError, log

TITLE = "Real or generated?"
KEPT = 10
"""Minutes after which an upload is deleted."""
EXAMPLES_NOTE = '<p class="soft">A detector knows pictures like those it was trained on, and may be wrong about these.</p>'
CSS = Path(__file__).parent / "templates" / "page.css"
SHOW_VERDICT = "() => document.querySelector('#said .verdict, #said .problem')?.scrollIntoView({block: 'nearest'})"
"""On a small screen the answer may lie below what is seen."""
THEME = gr.themes.Default(font="sans-serif", font_mono="monospace", primary_hue="blue")
"""The system's own fonts: none comes from the network."""


async def _follow_no_address(url: str, cache_dir: str) -> str:
    raise gr.Error("Upload the file itself; addresses are not followed.")


# requests that no browser sends may name an address where a file should be, and Gradio would fetch
# it
processing_utils.async_ssrf_protected_download = _follow_no_address


def build_page(
    models: Models, examples: Sequence[Example], limits: Limits, max_mb: float, queue: int
) -> gr.Blocks:
    """The page, ready to be mounted.

    Args:
        examples: pictures to choose from, at least one. max_mb: size of an upload, which whoever
            mounts the page has to check.
        queue: requests that may wait; one is answered at a time.
    """
    handler = _Handler(models, examples, limits)
    first = models.names[0]
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 60 * KEPT)) as page:
        gr.HTML(
            rendered("head.html", title=TITLE, max_mb=max_mb, limits=limits, kept=KEPT),
            padding=False,
        )
        model = gr.Dropdown(
            models.names, value=first, label="Detector", visible=len(models.names) > 1
        )
        upload = gr.File(
            label="Picture or video",
            file_count="single",
            type="filepath",
            height=140,
            elem_id="upload",
        )
        gallery = gr.Gallery(
            [(str(example.path), example.caption) for example in examples],
            label="Or try one of these", height="auto", object_fit="cover", allow_preview=False, buttons=[], interactive=False,
            elem_id="examples",
        )  # fmt: skip
        gr.HTML(EXAMPLES_NOTE, padding=False)
        shown = gr.State(None)
        said = gr.HTML(elem_id="said", padding=False)
        what = gr.HTML(handler.about(first), elem_id="what", padding=False)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress_on": said}
        # without a name in common, Gradio would answer one of each event at a time
        one: dict[str, Any] = {**private, "concurrency_id": "answer", "concurrency_limit": 1}
        for answered in (
            upload.upload(handler.upload, [upload, model], [said, shown], **one),
            gallery.select(handler.example, [model], [said, shown, upload], **one),
        ):
            answered.then(None, js=SHOW_VERDICT, api_visibility="private")
        upload.clear(handler.clear, None, [said, shown], **private)
        model.change(handler.again, [shown, model], [said, what], **one)
    page.queue(max_size=queue)
    return page


class _Handler:
    """What the page does; every method returns new values of components."""

    def __init__(self, models: Models, examples: Sequence[Example], limits: Limits) -> None:
        self._models, self._examples, self._limits = models, examples, limits

    def upload(self, path: str | None, model: str) -> tuple[str, str | None]:
        return self._answer(path, model), path

    def clear(self) -> tuple[str, None]:
        return "", None

    def example(self, model: str, event: gr.SelectData) -> tuple[str, str, None]:
        path = str(self._examples[event.index].path)
        return self._answer(path, model), path, None

    def again(self, path: str | None, model: str) -> tuple[str, str]:
        return self._answer(path, model) if path else "", self.about(model)

    def about(self, model: str) -> str:
        try:
            return about(self._models[model])
        except UserError as error:
            return self._unusable(error)

    def _answer(self, path: str | None, model: str) -> str:
        if path is None:
            return ""
        try:
            detector = self._models[model]
        except UserError as error:
            return self._unusable(error)
        try:
            return answer(detector, Path(path), self._limits)
        except NoAnswer as error:
            return problem(str(error))
        except UserError as error:
            log.error("%s", error)
            return problem(
                "This cannot be answered; the terminal where the page was started says why."
            )

    def _unusable(self, error: UserError) -> str:
        log.error("%s", error)  # paths of this machine are nobody else's business
        if isinstance(error, NotEnoughMemory | OutOfGpuMemory):
            return problem("This detector cannot be loaded: not enough memory.")
        return problem(
            "This detector cannot be loaded; the terminal where the page was started says why."
        )
