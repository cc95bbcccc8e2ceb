"""What rooms and microphones add to recordings; leaks and mixed bandwidths out."""

import numpy as np

from medfuse.leaks.association import cut_numbers
from medfuse.leaks.checks.acquisition import find_lowpass, find_reach
from medfuse.leaks.checks.telling import find_telling
from medfuse.leaks.examined import Examined
from medfuse.leaks.report import LeakFinding, Remedy, pick_examples

APART = 1.5
"""Ratio of two bandwidths next to each other that makes them two sorts of recordings."""

FEWEST = 3
"""Recordings of a sort."""

HEARD = {"hum_50_db": "hum at 50 Hz", "hum_60_db": "hum at 60 Hz", "background_db": "background"}


def check_background(examined: Examined) -> list[LeakFinding]:
    """Test whether hum or the level of the quietest moment tells a label."""
    voices = [facts.voice for facts in examined.facts]
    features = [
        cut_numbers(name, np.array([np.nan if v is None else v.numbers[key] for v in voices]))
        for key, name in HEARD.items()
    ]
    return find_telling(examined, "background", [f for f in features if f is not None])


def check_duration(examined: Examined) -> list[LeakFinding]:
    """Tell of labels that the length of the recording goes with, which may well be evidence."""
    voices = [facts.voice for facts in examined.facts]
    seconds = [np.nan if v is None else v.numbers["duration_s"] for v in voices]
    feature = cut_numbers("duration of the recording", np.array(seconds))
    if feature is None:
        return []
    return find_telling(examined, "duration", [feature], lambda *_: None, severity="info")


def check_bandwidths(examined: Examined) -> list[LeakFinding]:
    """Warn of recordings that reach much higher than others, and of which label they are."""
    bandwidth = find_reach(examined)
    known = np.flatnonzero(~np.isnan(bandwidth) & (bandwidth > 0))
    ordered = known[np.argsort(bandwidth[known], kind="stable")]
    steps = bandwidth[ordered][1:] / bandwidth[ordered][:-1]
    if not len(steps) or steps.max() < APART:
        return []
    cut = int(steps.argmax()) + 1
    low, high = ordered[:cut], ordered[cut:]
    few = min((low, high), key=len)
    if len(few) < FEWEST:
        return []
    lowpass = find_lowpass(examined)
    alike = []
    for target in examined.targets:
        labels = target.labels[few]
        if (labels == 1).all():
            alike.append(target.name)
    return [
        LeakFinding(
            kind="mixed-bandwidth",
            severity="warn",
            feature="bandwidth of the recording",
            count=len(few),
            examples=pick_examples(examined.name(few)),
            message=f"{len(high)} recordings reach {bandwidth[high].min():g} Hz or more, the "
            f"other {len(low)} at most {bandwidth[low].max():g} Hz, which a model can hear"
            + (f"; all of the {len(few)} have {', '.join(alike)}." if alike else "."),
            remedy=None if lowpass is None else Remedy(lowpass_hz=lowpass),
        )
    ]
