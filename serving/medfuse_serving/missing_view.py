"""Over what missing modalities could move an answer in, HTML for the page out."""

from collections.abc import Collection, Sequence

from medfuse.overlay import escape_text
from medfuse_serving.answer import Answer, format_probability
from medfuse_serving.language import Language
from medfuse_serving.missing import Reach
from medfuse_serving.report.words import title


def reach_html(
    language: Language, answer: Answer, reaches: Sequence[Reach], withheld: Collection[str]
) -> str:
    """Show a table for each missing modality: a row per question, the answer and its range.

    Args:
        language: The reader's.
        answer: Of the study as it is.
        reaches: Of it.
        withheld: Questions, and tasks, that are left to a human; nothing is shown of them.
    """
    return "".join(_table_html(language, answer, reach, withheld) for reach in reaches)


def _table_html(language: Language, answer: Answer, reach: Reach, withheld: Collection[str]) -> str:
    caption = language.text(
        "What the missing {modality} might change: the answer with that of each of {count} other "
        "patients in its place. Not how likely any of it is.",
        modality=language.name(reach.modality),
        count=reach.count,
    )
    heads = (language.text("Finding"), language.text("Now"), language.text("Could be"))
    head = "".join(f'<th scope="col">{escape_text(text)}</th>' for text in heads)
    rows = ""
    for task in answer.tasks:
        if task.name in withheld or reach.modality not in task.reads:
            continue
        numbers = {f"{task.name}.{name}": p for name, p in task.probabilities.items()}
        if task.value is not None:
            numbers[task.name] = task.value
        for question, now in numbers.items():
            if question in withheld or question not in reach.ranges:
                continue
            form = _format_value if task.value is not None else format_probability
            low, high = map(form, reach.ranges[question])
            span = language.text("{low} to {high}", low=low, high=high)
            name = escape_text(title(language, question.partition(".")[2] or question))
            shown = form(now) if task.used else language.text("not answered")
            rows += (
                f'<tr><th scope="row">{name}</th><td>{escape_text(shown)}</td>'
                f"<td>{_bar_html(reach.ranges[question], now, task.value is None)}"
                f"{escape_text(span)}</td></tr>"
            )
    if not rows:
        return ""
    return (
        f'<table class="mf-reach"><caption>{escape_text(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _bar_html(span: tuple[float, float], now: float, is_probability: bool) -> str:
    """Draw a probability's range on a line from 0 to 1, with a mark where it is now."""
    if not is_probability:
        return ""
    low, high = span
    return (
        '<span class="mf-range" aria-hidden="true">'
        f'<i style="left:{100 * low:.1f}%;width:{100 * (high - low):.1f}%"></i>'
        f'<b style="left:{100 * now:.1f}%"></b></span>'
    )


def _format_value(value: float) -> str:
    return f"{value:.4g}"
