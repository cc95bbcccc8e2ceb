"""The page's explanation: asked for by hand, told step by step, shown in place of the evidence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from medfuse.attribution.settings import METHODS, AttributionSettings
from medfuse.dictation.record import Span
from medfuse.types import Study
from medfuse_serving import explanation_view, rendering
from medfuse_serving.answer import Answer
from medfuse_serving.evidence_table import number_frames, strength_html, table_html
from medfuse_serving.explainer import Explained, Explainer, Glance, Waiting
from medfuse_serving.explanation_view import View
from medfuse_serving.labels import Choices, Labels
from medfuse_serving.language import ENGLISH, Language, message
from medfuse_serving.report import words
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
    stop: "gradio.Button"
    summary: "gradio.HTML"

    @property
    def choices(self) -> "list[gradio.components.Component]":
        """What is chosen, in the order that `explain` takes it."""
        return [self.target, self.method, self.baseline, self.band]


@dataclass(frozen=True, slots=True)
class Maps:
    """Where the maps are shown, and what goes with them; all are empty while there is none."""

    image: "gradio.HTML"
    note: "gradio.HTML"
    voice: "gradio.HTML"
    strength: "gradio.HTML"
    table: "gradio.HTML"

    @property
    def places(self) -> "list[gradio.HTML]":
        """All of them."""
        return [self.image, self.note, self.voice, self.strength, self.table]


def lay_controls(explainer: Explainer, labels: Labels) -> Controls:
    """Lay out the controls and the place of the summary."""
    import gradio as gr

    def targets(language: Language) -> Choices:
        return list_targets(language, explainer)

    def methods(language: Language) -> Choices:
        return _list_names(language, words.METHODS, METHODS)

    def baselines(language: Language) -> Choices:
        return _list_names(language, words.BASELINES, explainer.baselines)

    with gr.Column(elem_id="explain", visible=explainer.ready):
        with gr.Row(elem_classes="mf-ask"):
            target = gr.Dropdown(targets(ENGLISH), value=explainer.targets[0], scale=2)
            labels.put(target, message("Finding to explain"), targets)
            ask = gr.Button(variant="primary", scale=1, min_width=180)
            labels.put(ask, message("Explain this answer"))
            stop = gr.Button(scale=0, min_width=120, elem_id="stop")
            labels.put(stop, message("Stop explaining"))
        with labels.put(gr.Accordion(open=False), message("Advanced: method and baseline")):
            with gr.Row():
                method = gr.Dropdown(methods(ENGLISH), value=METHODS[0])
                labels.put(method, message("Method"), methods)
                baseline = gr.Dropdown(
                    baselines(ENGLISH), value=next(iter(explainer.baselines), None)
                )
                labels.put(baseline, message("Baseline"), baselines)
            band = gr.Checkbox(False)
            labels.put(
                band, message("Show how far the shares move over every other baseline (slower)")
            )
    summary = gr.HTML("", elem_id="explanation")
    return Controls(target, method, baseline, band, ask, stop, summary)


def list_targets(language: Language, explainer: Explainer) -> Choices:
    """List the targets: each finding as the reader calls it, after its task where several are."""
    several = len(explainer.predictor.bundle.manifest.tasks) > 1
    choices = []
    for target in explainer.targets:
        task, _, finding = target.partition(".")
        said = language.name(finding)
        choices.append((f"{language.name(task)}: {said}" if several else said, target))
    return choices


def _list_names(language: Language, names: Mapping[str, str], chosen: Iterable[str]) -> Choices:
    said = ((words.look_up(language, names, name), name) for name in chosen)
    return [(text[:1].upper() + text[1:], name) for text, name in said]


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
    cleared: Shown = {controls.summary: ""}
    return cleared | dict.fromkeys(maps.places, "")


def explain(
    explainer: Explainer,
    study: Study,
    target: str,
    method: str,
    baseline: str | None,
    band: bool,
    ended: Callable[[], bool],
) -> Iterator[float | Waiting | Glance | View]:
    """Explain a study: how far it is, from 0 to 1, again and again; in the end the explanation.

    A coarse map comes in between, where there is a quick one. While another study is explained, it
    is told once that this one waits.

    Ends early, and without one, once it has to end.

    Raises:
        MedfuseError: There is none.
    """
    chosen = {"method": method, "baseline": baseline}
    settings = AttributionSettings.model_validate({k: v for k, v in chosen.items() if v})
    prepare = explainer.predictor.bundle.manifest.prepare
    yield 0.0
    shown, waits = 0, False
    for step in explainer.follow(study, target, settings, band=band):
        if ended():
            return
        if isinstance(step, Explained):
            yield explanation_view.make_view(step, prepare, explainer.scales)
        elif isinstance(step, Glance):
            yield step
        elif isinstance(step, Waiting):
            if not waits:
                yield step
            waits = True
        elif int(100 * step) > shown:
            shown = int(100 * step)
            yield step


def show(
    language: Language,
    explainer: Explainer,
    controls: Controls,
    maps: Maps,
    view: View,
    image_maps: Shelf,
    study: Study,
    read: Sequence[int | None],
    sounds: Mapping[str, Span],
) -> Shown:
    """Show an explanation, its image's maps from their shelf.

    Args:
        language: The reader's.
        explainer: That explained.
        controls: Where its summary is shown.
        maps: Where its maps are.
        view: The explanation.
        image_maps: On their shelf.
        study: Its bytes.
        read: Of each frame in the viewer, its number among those that the model reads.
        sounds: Of the pieces that were dictated, by name, where they are in the dictation.
    """
    prepare = explainer.predictor.bundle.manifest.prepare
    pieces = number_frames(view.pieces, read)
    table = table_html(language, view.record, pieces, view.scale, image_maps, sounds)
    return {
        controls.summary: rendering.card_html(
            language.text("Explanation"),
            explanation_view.summary_html(language, view.record, pieces),
        ),
        maps.strength: strength_html(image_maps) if pieces else "",
        maps.table: table,
        maps.image: explanation_view.image_html(language, view, image_maps),
        maps.note: explanation_view.note_html(language, view),
        maps.voice: explanation_view.voice_html(language, view, study.voice or b"", prepare),
    }
