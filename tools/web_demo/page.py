"""The page, made of Gradio's components. Needs Gradio."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import gradio as gr
import safehttpx

from device import NotEnoughMemory, OutOfGpuMemory, memory_errors
from inference.detector import Detector
from tools.web_demo.answers import Answer, Limits, answer, facts, paragraphs
from tools.web_demo.examples import Example
from util import UserError, log

TITLE = "Real or generated?"
KEPT = 10  # minutes after which an upload is deleted
INTRODUCTION = """# {title}
Drop an image or a short video. The detector looks for traces that image generators leave between
neighbouring pixels.

Up to {limits.megabytes:g} MB; of a video (up to {limits.seconds:g} s) up to {limits.frames} frames
are used. Give the original file: a screenshot has lost the traces. Uploads stay on this server and
are deleted after about {kept} minutes."""
EXAMPLES_NOTE = (
    "A detector knows images like those it was trained on, and may be wrong about these."
)
READING = """### How to read this
- **Residual**: the image is made smaller by a factor, the scale, and larger again; the residual is
  what gets lost. Cameras leave irregular noise there. Generators often leave regular patterns, such
  as a grid; the enlarged square shows single pixels.
- **Attention of the scales**, of a detector with several: how much the residual of each counts.
- **Evidence**: orange areas speak for "generated", purple ones for "real".
- **Videos**: each point is a frame. The verdict is that on the median of the frames, so that a few
  odd ones do not decide."""
BLIND_SPOTS = """### What the detector is blind to
- **Generators it has not seen.** Others may leave different traces, or none.
- **Heavy compression.** Messengers and social networks compress images, which wipes traces out.
- **Resized images and screenshots.** Resizing mixes neighbouring pixels.
- **Small edits.** It looks for traces all over an image; a changed corner may go unnoticed.

**No verdict here is proof.** Ask where an image comes from, and do not decide about people by this
page."""
CSS = """
#answer h2, #answer .problem { padding: .5rem 1rem; border-left: .6rem solid #e69f00; }
#answer h2.generated { border-color: #d55e00; }
#answer h2.real { border-color: #0072b2; }
#answer h2.unsure { border-color: #808080; }
#answer, #facts, #examples .caption-label { overflow-wrap: anywhere; max-width: 100%; }
#examples .grid-wrap { min-height: 0; max-height: none; }
#examples .grid-container { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr));
    padding-top: 2rem; }
#examples .caption-label { white-space: normal; }
#panel .image-frame { justify-content: start; overflow-x: auto; }
#panel img { min-width: 40rem; }
"""
THEME = gr.themes.Default(font="sans-serif", font_mono="monospace")  # no font from the network
# after the answer has been laid out
SHOW_ANSWER = """() => setTimeout(() => {
    document.querySelector('#answer h2, #answer .problem')?.scrollIntoView({block: 'center'})
}, 200)"""


async def _refuse(*args: Any, **keywords: Any) -> NoReturn:
    raise gr.Error("Upload the file itself; addresses are not fetched.", print_exception=False)


# a request may name an address where a file should be; Gradio would fetch it by these two functions
safehttpx.get = safehttpx.async_validate_url = _refuse


def build_page(
    names: Sequence[str],
    load: Callable[[str], Detector],
    examples: Sequence[Example],
    limits: Limits,
    queue: int,
) -> gr.Blocks:
    """Return the page.

    Args:
        names: of the detectors to choose from.
        load: returns the detector of a name; it may raise UserError for all but the first.
        examples: images to choose from, at least one.
        limits: of uploads; that of their size holds where `launch` is told.
        queue: requests that may wait; one is answered at a time.
    """

    def choose(event: gr.SelectData) -> str:
        return str(examples[event.index].path)

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, 60 * KEPT)) as page:
        gr.Markdown(INTRODUCTION.format(title=TITLE, limits=limits, kept=KEPT))
        detector = gr.Dropdown(
            list(names), value=names[0], label="Detector", visible=len(names) > 1
        )
        upload = gr.File(label="Image or video", type="filepath", height=140, elem_id="upload")
        gallery = gr.Gallery(
            list(examples),
            label="Or try one of these",
            height="auto",
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="examples",
        )
        gr.Markdown(EXAMPLES_NOTE)
        outputs = [
            gr.HTML(elem_id="answer"),
            gr.Label(label="Attention of the scales", show_heading=False, visible=False),
            gr.Image(
                label="Evidence",
                alt_text="Residual maps and evidence, or scores over time",
                format="png",
                interactive=False,
                visible=False,
                buttons=["download", "fullscreen"],
                elem_id="panel",
                elem_classes="scroll",
            ),
            gr.HTML(paragraphs(facts(load(names[0]))), elem_id="facts"),
        ]
        gr.Markdown(READING)
        gr.Markdown(BLIND_SPOTS)
        gallery.select(choose, None, upload, api_visibility="private")
        gr.on(
            [upload.change, detector.change],
            lambda path, name: respond(load, limits, path, name),
            [upload, detector],
            outputs,
            concurrency_limit=1,
            show_progress_on=outputs[0],
            api_visibility="private",
        ).then(None, js=SHOW_ANSWER, api_visibility="private")
    page.queue(max_size=queue)
    return page


def respond(
    load: Callable[[str], Detector], limits: Limits, path: str | None, name: str
) -> list[Any]:
    """Return new values of the answer, the attention, the image and the facts.

    Args:
        load: see `build_page`.
        limits: of videos.
        path: the uploaded file, None if there is none.
        name: of the detector.
    """
    problem, known, new = "", "", Answer("", {}, None)
    try:
        with memory_errors():
            detector = load(name)
            known = paragraphs(facts(detector))
            if path is not None:
                new = answer(detector, Path(path), limits)
    except (NotEnoughMemory, OutOfGpuMemory) as error:
        log.error("%s", error)
        problem = "There is not enough memory for this file or this detector."
    except UserError as error:  # it may name paths of this machine
        log.error("%s", error)
        problem = "The terminal where the page was started says why."
    except ValueError as error:
        problem = f"{Path(str(path)).name} cannot be scored: {error}."
    if problem:
        lines = paragraphs([f"No answer. {problem}"])
        new = Answer(f"<div class='problem' role='alert'>{lines}</div>", {}, None)
    return [
        new.html,
        gr.Label(new.attention, visible=len(new.attention) > 1),
        gr.Image(new.image, visible=new.image is not None),
        known,
    ]
