"""An answer and what was asked for in; the targets that a report explains out."""

from collections.abc import Sequence

from medfuse.errors import SettingsError
from medfuse_serving.answer import Answer
from medfuse_serving.report.withhold import PER_FINDING, concerned, find_referrals, list_withheld

ALL, NONE = "all", "none"
"""What may be asked for in place of targets."""


def choose_targets(
    answer: Answer, targets: Sequence[str], asked: Sequence[str] | None, *, ready: bool
) -> tuple[str, ...]:
    """Choose what to explain; never what is left to a human in any case, since it is not shown.

    Args:
        answer: To the study.
        targets: Of the model, a name per logit.
        asked: Targets, or `ALL` or `NONE`; nothing for the most probable finding.
        ready: Whether the bundle can explain.

    Raises:
        SettingsError: A target was asked for of a bundle that can't explain.
    """
    if asked and not ready and NONE not in asked:
        raise SettingsError(
            "the bundle carries no explanations; leave out --explain, or export it again with them"
        )
    if not ready or (asked and NONE in asked):
        return ()
    withheld = list_withheld(find_referrals(answer, ()))
    answered = {target for task in answer.tasks if task.used for target in task.logits}
    fit = [t for t in targets if t in answered and not withheld & set(concerned(answer, t))]
    if asked and ALL in asked:
        return tuple(fit)
    if asked:
        return tuple(t for t in dict.fromkeys(asked) if not withheld & set(concerned(answer, t)))
    probable = {
        f"{task.name}.{name}": probability
        for task in answer.tasks
        if task.kind in PER_FINDING
        for name, probability in task.probabilities.items()
    }
    ranked = sorted((t for t in fit if t in probable), key=lambda t: -probable[t])
    return tuple((ranked or fit)[:1])
