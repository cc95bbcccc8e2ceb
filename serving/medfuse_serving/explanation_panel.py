"""The page's explanation: asked for by hand, told step by step, shown in place of the evidence."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medfuse.attribution.settings import METHODS, AttributionSettings
from medfuse.types import Study
from medfuse_serving import explanation_view, rendering
from medfuse_serving.answer import Answer
from medfuse_serving.explainer import Explained, Explainer
from medfuse_serving.explanation_view import BASELINE_NAMES, METHOD_NAMES, View
from medfuse_serving.shelves import Shelf
from medfuse_serving.telling import Shown

if TYPE_CHECKING:
    import gradio


@dataclass(frozen=True, slots=True)
class Controls:
    """What the user chooses and presses; invisible while there is no answer."""

    target: "gradio.Dropdown"
    method: "gradio.Dropdown"
    baseline: "gradio.Dropdown"
    band: "gradio.Checkbox"
    ask: "gradio.Button"
    summary: "gradio.HTML"

    @property
    def choices(self) -> "list[gradio.components.Component]":
        """What is chosen, in the order that `explain` takes it."""
        return [self.target, self.method, self.baseline, self.band]


@dataclass(frozen=True, slots=True)
class Maps:
    """Where the maps are shown; each is empty, and its evidence plain, while there is none."""

    image: "gradio.HTML"
    note: "gradio.HTML"
    voice: "gradio.HTML"


@dataclass(slots=True)
class Changes:
    """How often one user's study has changed; an explanation ends when it has.

    Gradio can cancel too, but what it had already sent is then shown after what took its place,
    and of two cancellations at once one fails and leaves it there.
    """

    count: int = 0

    def since(self) -> Callable[[], bool]:
        """Give what tells whether the study has changed from now on."""
        now = self.count
        return lambda: self.count != now


def lay_controls(explainer: Explainer) -> Controls:
    """Lay out the controls and the place of the summary."""
    import gradio as gr

    targets = [(name_target(explainer, name), name) for name in explainer.targets]
    baselines = [(BASELINE_NAMES[name], name) for name in explainer.baselines]
    with gr.Column(elem_id="explain", visible=explainer.ready):
        with gr.Row(elem_classes="mf-ask"):
            target = gr.Dropdown(targets, value=targets[0][1], label="Finding to explain", scale=2)
            ask = gr.Button("Explain this answer", variant="primary", scale=1, min_width=180)
        with gr.Accordion("Advanced: method and baseline", open=False):
            with gr.Row():
                method = gr.Dropdown(
                    [(METHOD_NAMES[name], name) for name in METHODS],
                    value=METHODS[0],
                    label="Method",
                )
                baseline = gr.Dropdown(
                    baselines, value=baselines[0][1] if baselines else None, label="Baseline"
                )
            band = gr.Checkbox(
                False, label="Show how far the shares move over every other baseline (slower)"
            )
    summary = gr.HTML("", elem_id="explanation")
    return Controls(target, method, baseline, band, ask, summary)


def name_target(explainer: Explainer, target: str) -> str:
    """Name a target for the reader: its finding, after its task where there are several tasks."""
    task, _, finding = target.partition(".")
    several = len(explainer.predictor.bundle.manifest.tasks) > 1
    return f"{task}: {finding}".replace("_", " ") if several else finding.replace("_", " ")


def choose_target(answer: Answer) -> str | None:
    """Choose what is likely to be asked about: the most probable finding that is answered."""
    probabilities = {
        f"{task.name}.{name}": probability
        for task in answer.tasks
        for name, probability in task.probabilities.items()
        if f"{task.name}.{name}" in task.logits and task.used
    }
    return max(probabilities, key=lambda name: probabilities[name], default=None)


def clear(controls: Controls, maps: Maps) -> Shown:
    """Take an explanation away."""
    return {controls.summary: "", maps.image: "", maps.note: "", maps.voice: ""}


def explain(
    explainer: Explainer,
    study: Study,
    target: str,
    method: str,
    baseline: str | None,
    band: bool,
    changed: Callable[[], bool],
) -> Iterator[str | View]:
    """Explain a study: how far it is, as HTML, again and again, and in the end the explanation.

    Ends early, and without one, once the study has changed.

    Raises:
        MedfuseError: There is none.
    """
    chosen = {"method": method, "baseline": baseline}
    settings = AttributionSettings.model_validate({k: v for k, v in chosen.items() if v})
    prepare = explainer.predictor.bundle.manifest.prepare
    yield explanation_view.progress_html(0.0)
    shown = 0
    for step in explainer.follow(study, target, settings, band=band):
        if changed():
            return
        if isinstance(step, Explained):
            yield explanation_view.make_view(step, prepare, explainer.scales)
        elif int(100 * step) > shown:
            shown = int(100 * step)
            yield explanation_view.progress_html(step)


def show(
    explainer: Explainer,
    controls: Controls,
    maps: Maps,
    view: View,
    image_maps: Shelf,
    study: Study,
) -> Shown:
    """Show an explanation, its image's maps from their shelf."""
    prepare = explainer.predictor.bundle.manifest.prepare
    return {
        controls.summary: rendering.card_html(
            "Explanation", explanation_view.summary_html(view.record)
        ),
        maps.image: explanation_view.image_html(view, image_maps),
        maps.note: explanation_view.note_html(view),
        maps.voice: explanation_view.voice_html(view, study.voice or b"", prepare),
    }
