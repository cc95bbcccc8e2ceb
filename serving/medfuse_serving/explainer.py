"""A predictor's bundle and a study in, why it was answered so out, on ONNX Runtime alone."""

import logging
import queue
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int64

from medfuse.attribution.background import from_bytes
from medfuse.attribution.badge import BadgeSettings
from medfuse.attribution.baselines import available_baselines
from medfuse.attribution.explain import explain_study
from medfuse.attribution.explain import glance as quickly
from medfuse.attribution.network import Cells, Gradients, Inputs, Network
from medfuse.attribution.scale import Scales
from medfuse.attribution.settings import BASELINE_NAMES, AttributionSettings, BaselineName
from medfuse.attribution.subject import take_up
from medfuse.attribution.target import parse_target
from medfuse.bundle import BACKGROUND, GRAPH
from medfuse.data.prepare import collate, prepare
from medfuse.data.studies import find_studies, read_study
from medfuse.errors import BundleError, InputError
from medfuse.golden import read_golden
from medfuse.runtime import open_network
from medfuse.types import Attribution, Explanation, Modality, Prepared, Study
from medfuse_serving.predictor import Predictor

SAMPLES = 16
"""Studies of the background's folder that a study is measured against; each costs a pass more."""

TURN_S = 0.2
"""How often who waits for a turn is told so."""

Progress = Callable[[int, int], None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Explained:
    """An explanation, with the study as the model saw it."""

    prepared: Prepared
    explanation: Explanation


@dataclass(frozen=True, slots=True)
class Glance:
    """A coarse map of a study that is still being explained; nothing of it was checked."""

    prepared: Prepared
    attribution: Attribution


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another explanation is under way, and this one comes after it."""


class GoneError(Exception):
    """Nobody waits for the explanation any more."""


class _Watched:
    """A network that tells the progress again before each thing it is asked, which may end it."""

    def __init__(self, network: Network, progress: Progress) -> None:
        self._network, self._progress = network, progress
        self._last = (0, 1)

    def tell(self, done: int, wanted: int) -> None:
        """Tell new progress."""
        self._last = (done, wanted)
        self._progress(done, wanted)

    @property
    def targets(self) -> tuple[str, ...]:
        return self._network.targets

    def embed(self, pieces: Int64[np.ndarray, "n l"]) -> Float[np.ndarray, "n l e"]:
        return self._ask().embed(pieces)

    def answer(self, inputs: Inputs) -> Float[np.ndarray, "n k"]:
        return self._ask().answer(inputs)

    def differentiate(
        self, inputs: Inputs, weights: Float[np.ndarray, "n k"], wanted: Collection[Modality]
    ) -> Gradients:
        return self._ask().differentiate(inputs, weights, wanted)

    def see(self, inputs: Inputs, weights: Float[np.ndarray, "n k"]) -> Cells:
        return self._ask().see(inputs, weights)

    def attend_frames(self, inputs: Inputs) -> Float[np.ndarray, "n s"]:
        return self._ask().attend_frames(inputs)

    def _ask(self) -> Network:
        self._progress(*self._last)
        return self._network


class Explainer:
    """Explains what a predictor answers, one study at a time; several threads may ask it.

    Attributes:
        predictor: Whose bundle is explained.
    """

    def __init__(
        self,
        predictor: Predictor,
        background: Path | None = None,
        network: Network | None = None,
    ) -> None:
        """Prepare to explain; the graph is opened by the first study, since it takes seconds.

        Args:
            predictor: Whose bundle is explained.
            background: A folder of studies for the baseline ``marginal``.
            network: Asked in place of the bundle's own graph.

        Raises:
            InputError: The folder has no studies.
        """
        self.predictor = predictor
        found = find_studies(background) if background else ()
        self._files = found[:: max(1, len(found) // SAMPLES)][:SAMPLES]
        self._samples: tuple[Inputs, ...] | None = None
        self._network = network
        self._opening, self._turn = threading.Lock(), threading.Lock()
        part = predictor.bundle.manifest.explain
        self._background = (
            from_bytes(predictor.bundle.read(BACKGROUND)) if part is not None else None
        )
        self._scales = part.scales if part is not None else Scales()

    @property
    def ready(self) -> bool:
        """Whether the bundle can be explained at all."""
        return self._network is not None or self.predictor.bundle.manifest.explain is not None

    @property
    def targets(self) -> tuple[str, ...]:
        """What can be explained: the name of each logit."""
        return tuple(t for task in self.predictor.bundle.manifest.tasks for t in task.targets)

    @property
    def baselines(self) -> tuple[BaselineName, ...]:
        """What a study can be measured against here."""
        names = set(available_baselines(self.predictor.tokenizer, self._background, ()))
        if self._files:
            names.add("marginal")
        return tuple(name for name in BASELINE_NAMES if name in names)

    @property
    def scales(self) -> Scales:
        """Where the colours of the bundle's maps are full."""
        return self._scales

    def read_others(self) -> tuple[Study, ...]:
        """Read the background's studies; one that cannot be read is left out."""
        limits = self.predictor.bundle.manifest.prepare.limits
        read = []
        for files in self._files:
            try:
                read.append(read_study(files, limits))
            except InputError as error:
                logger.warning("a background study is left out: %s", error)
        return tuple(read)

    @property
    def has_others(self) -> bool:
        """Whether there are other studies to measure a study against."""
        return bool(self._files)

    def explain(
        self,
        study: Study,
        target: str,
        settings: AttributionSettings,
        *,
        band: bool = False,
        progress: Progress | None = None,
        glance: Callable[[Glance], None] | None = None,
        wait: Callable[[], None] | None = None,
    ) -> Explained:
        """Explain one target of a study's answer; a second call waits until the first is done.

        Args:
            study: As it was predicted.
            target: A name of `targets`, or a weighting of several.
            settings: Method and baseline.
            band: Share the output out against every other baseline, too.
            progress: Called with the work done and wanted, again before each time that the graph is
                asked; what it raises ends the work.
            glance: Called with a coarse map, first of all, where there is a quick one.
            wait: Called again and again while another is explained; what it raises ends the wait.

        Raises:
            InputError: The study cannot be used.
            SettingsError: The target, method or baseline cannot be used.
            BundleError: The bundle carries no explanations, or its graph failed.
        """
        manifest = self.predictor.bundle.manifest
        chosen = parse_target(target, self.targets)
        prepared = prepare(study, manifest.prepare, self.predictor.tokenizer)
        opened = self._open()
        watched = None if progress is None else _Watched(opened, progress)
        network: Network = watched or opened
        with self._take_turn(wait):
            subject = take_up(network, prepared, manifest.prepare)
            if glance is not None:
                tokenizer = self.predictor.tokenizer
                coarse = quickly(network, subject, chosen, settings, tokenizer, self._background)
                if coarse is not None:
                    glance(Glance(prepared, coarse))
            sampled = band or settings.baseline == "marginal"
            explanation = explain_study(
                network,
                subject,
                chosen,
                settings,
                BadgeSettings(),
                self.predictor.tokenizer,
                self._background,
                self._take_samples(opened) if sampled else (),
                self.predictor.bundle.digest,
                band=band,
                progress=None if watched is None else watched.tell,
            )
        return Explained(prepared, explanation)

    def follow(
        self, study: Study, target: str, settings: AttributionSettings, *, band: bool = False
    ) -> Iterator[float | Waiting | Glance | Explained]:
        """Explain as `explain` does and tell the share done, which never falls; then the result.

        Something is told each time that the graph is asked. A coarse map comes first, where there
        is a quick one. Closing the iterator ends the work.

        Raises:
            MedfuseError: As `explain`.
        """
        told: queue.SimpleQueue[float | Waiting | Glance | Explained | BaseException]
        told = queue.SimpleQueue()
        gone = threading.Event()

        def go_on() -> None:
            if gone.is_set():
                raise GoneError

        def tell(done: int, wanted: int) -> None:
            go_on()
            told.put(done / wanted)

        def wait() -> None:
            go_on()
            told.put(Waiting())

        def work() -> None:
            try:
                explained = self.explain(
                    study,
                    target,
                    settings,
                    band=band,
                    progress=tell,
                    glance=told.put,
                    wait=wait,
                )
                told.put(explained)
            except BaseException as error:  # noqa: BLE001 - raised again where it is waited for
                told.put(error)

        threading.Thread(target=work, daemon=True).start()
        most = 0.0
        try:
            while not isinstance(item := told.get(), Explained):
                if isinstance(item, BaseException):
                    raise item
                if isinstance(item, Glance | Waiting):
                    yield item
                    continue
                most = max(most, item)
                yield most
            yield item
        finally:
            gone.set()

    @contextmanager
    def _take_turn(self, wait: Callable[[], None] | None) -> Iterator[None]:
        while not self._turn.acquire(timeout=TURN_S if wait is not None else -1):
            assert wait is not None
            wait()
        try:
            yield
        finally:
            self._turn.release()

    def _open(self) -> Network:
        with self._opening:
            if self._network is None:
                predictor = self.predictor
                if predictor.bundle.manifest.explain is None:
                    raise BundleError(
                        "the bundle carries no explain.onnx, so its answers can't be explained; "
                        "export it again with explanations"
                    )
                self._network = open_network(
                    predictor.bundle, predictor.provider, weights=predictor.weights
                )
            return self._network

    def _take_samples(self, network: Network) -> tuple[Inputs, ...]:
        """Read the background's studies once; one that cannot be read is left out."""
        if self._samples is None:
            samples = []
            settings = self.predictor.bundle.manifest.prepare
            for files in self._files:
                try:
                    study = read_study(files, settings.limits)
                    prepared = prepare(study, settings, self.predictor.tokenizer)
                except InputError as error:
                    logger.warning("a background study is left out: %s", error)
                    continue
                samples.append(take_up(network, prepared, settings).inputs)
            self._samples = tuple(samples)
        return self._samples


def check_explanations(predictor: Predictor) -> float:
    """Open the graphs that explain, and let them answer the golden study with every subset.

    Returns:
        The largest difference from what `predict.onnx` answers, relative to the logits' scale.

    Raises:
        BundleError: They are of another model, cannot be loaded, or answer otherwise.
    """
    bundle = predictor.bundle
    network = open_network(bundle, predictor.provider, weights=predictor.weights)
    golden, settings = read_golden(bundle), bundle.manifest.prepare
    worst = 0.0
    for study in golden.studies:
        prepared = prepare(study, settings, predictor.tokenizer)
        inputs = take_up(network, prepared, settings).inputs
        expected = predictor.run(collate([prepared], settings))
        weights = np.ones_like(expected)
        for given in (
            network.answer(inputs),
            network.differentiate(inputs, weights, inputs.present).logits,
        ):
            worst = max(worst, float(np.abs(given - expected).max()) / golden.answer.scale)
    if not worst <= golden.answer.tolerance:
        raise BundleError(
            f"the graphs that explain answer the golden study {worst:.1e} of the logits' scale "
            f"otherwise than {GRAPH} does, and {golden.answer.tolerance:.0e} is allowed; export "
            "the bundle again"
        )
    return worst
