"""A bundle and studies in, predictions out, on ONNX Runtime alone."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from medfuse.bundle import GRAPH, NOVELTY, TOKENIZER, open_bundle
from medfuse.data.note import read_tokenizer
from medfuse.data.prepare import collate, prepare
from medfuse.errors import BundleError, MedfuseError, SettingsError
from medfuse.golden import check_golden, check_sentences, read_golden
from medfuse.runtime import (
    RUNTIME_ERRORS,
    check_graph,
    choose_provider,
    load_graph,
    load_weights,
    open_writer,
    provider_in_use,
)
from medfuse.text.places import Layout
from medfuse.text.record import TextRecord
from medfuse.text.say import say_findings
from medfuse.text.writing import Writer, write_drafts
from medfuse.trust.calibration import answer
from medfuse.trust.descriptors import describe
from medfuse.trust.judging import judge_answers
from medfuse.trust.novelty import NoveltyModel, from_bytes
from medfuse.trust.retrieval import Embeddings
from medfuse.types import MODALITIES, Batch, Modality, Prediction, Prepared, Study, subset_name

BATCH_STUDIES = 8
"""Studies that go through the graph at once; bounds the memory of a long list."""

MEMORY = ("memory", "memory_mask")
"""What findings text is written from, among the graph's outputs."""

logger = logging.getLogger(__name__)


class Predictor:
    """A verified bundle, loaded and ready; safe to use from several threads at once.

    Attributes:
        bundle: The opened bundle; its `digest` names the model.
        provider: The execution provider in use, a key of `PROVIDERS`.
        weights: What the bundle's graphs share.
        novelty: What usual studies are like; empty in a bundle that promises nothing.
        writer: Writes findings text; None in a bundle that writes none.
    """

    def __init__(self, bundle: Path, provider: str | None = None, strict: bool = False) -> None:
        """Verify a bundle, then load the very bytes that were verified.

        Args:
            bundle: The bundle's folder.
            provider: A key of `PROVIDERS`; the first that ONNX Runtime has here by default.
            strict: Refuse to start when ``provider`` is not the one in use. ONNX Runtime itself
                only warns and falls back to the CPU.

        Raises:
            BundleError: The bundle is not whole, its graph is not what the manifest says, or a
                strict start did not get its provider.
        """
        self.bundle = open_bundle(bundle)
        try:
            self.tokenizer = read_tokenizer(self.bundle.read(TOKENIZER))
        except SettingsError as error:
            raise BundleError(f"{TOKENIZER}: {error}; export the bundle again") from error
        wanted = choose_provider(provider)
        self.weights = load_weights(self.bundle)
        self._session = load_graph(GRAPH, self.bundle.read(GRAPH), self.weights, wanted)
        check_graph(GRAPH, self._session, self.bundle.manifest.inputs, self.bundle.manifest.outputs)
        self.provider = provider_in_use(self._session)
        if self.provider != wanted:
            message = (
                f"execution provider {wanted!r} was wanted and {self.provider!r} is in use; "
                "install its drivers and onnxruntime-gpu, or choose another provider"
            )
            if strict:
                raise BundleError(message)
            logger.warning("%s", message)
        trust = self.bundle.manifest.trust
        self.novelty = NoveltyModel({}) if trust is None else from_bytes(self.bundle.read(NOVELTY))
        self.writer: Writer | None = None
        if self.bundle.manifest.text is not None:
            self.writer = open_writer(self.bundle, wanted, self.weights)

    def predict(self, studies: Sequence[Study]) -> list[Prediction]:
        """Answer each study, whatever modalities each has.

        Raises:
            InputError: A study cannot be used; none is answered then.
            BundleError: The graph failed, or gave something that is not a number.
        """
        return [
            prediction
            for start in range(0, len(studies), BATCH_STUDIES)
            for prediction in self._predict_batch(studies[start : start + BATCH_STUDIES])
        ]

    def require_shared_space(self) -> None:
        """Refuse a model whose embeddings are of no common space.

        Raises:
            BundleError: It is one.
        """
        if not self.bundle.manifest.model.get("shared_space"):
            raise BundleError(
                "the bundle's model has no space that its modalities share; train one with "
                "model.shared_space and objectives.contrastive"
            )

    def require_text(self) -> TextRecord:
        """Refuse a model that writes no findings text; otherwise give how it is asked.

        Raises:
            BundleError: It is one.
        """
        if self.bundle.manifest.text is None:
            raise BundleError(
                "the bundle's model writes no findings text; train one with "
                "model.findings_text and objectives.findings_text"
            )
        return self.bundle.manifest.text.record

    def embed(self, studies: Sequence[Study]) -> Embeddings:
        """Give each study's embeddings by modality; zeros where one is absent.

        Raises:
            InputError: A study cannot be used.
            BundleError: The graph failed.
        """
        names = [f"{m}_embedding" for m in MODALITIES]
        parts, present = [], []
        for start in range(0, len(studies), BATCH_STUDIES):
            prepared = self.prepare(studies[start : start + BATCH_STUDIES])
            parts.append(self._run(names, collate(prepared, self.bundle.manifest.prepare)))
            present += [[m in one.present for m in MODALITIES] for one in prepared]
        vectors = {m: np.concatenate([part[i] for part in parts]) for i, m in enumerate(MODALITIES)}
        return Embeddings(vectors, np.array(present, dtype=bool))

    def check_golden(self) -> float:
        """Answer the golden study with every subset of its modalities, in words as well.

        Returns:
            The largest difference from the expected logits, relative to their scale.

        Raises:
            BundleError: An answer is outside the tolerance; this machine runs the model wrongly.
        """
        golden = read_golden(self.bundle)
        try:
            predictions = self.predict(golden.studies)
            if self.writer is not None:
                check_sentences(golden, self.write_all(golden.studies))
        except BundleError:
            raise
        except MedfuseError as error:
            raise BundleError(f"the golden study cannot be read here: {error}") from error
        return check_golden(golden, predictions)

    def write_all(self, studies: Sequence[Study]) -> list[dict[str, str]]:
        """Write a sentence of every finding of each study, stated or not, by target.

        Raises:
            InputError: A study cannot be used.
            BundleError: The bundle writes no text, or a graph failed.
        """
        record = self.require_text()
        assert self.writer is not None
        asked, vocabulary = range(len(record.findings)), record.vocabulary
        written = []
        for one in self.prepare(studies):
            tokens, mask = self._run(MEMORY, collate([one], self.bundle.manifest.prepare))
            drafts = zip(
                record.findings,
                write_drafts(self.writer, tokens[0], mask[0], asked),
                strict=True,
            )
            written.append({t: vocabulary.decode(d.words) for t, d in drafts if d is not None})
        return written

    def run(self, batch: Batch) -> Float32[np.ndarray, "b k"]:
        """Put one batch through the graph and give its logits.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        (logits,) = self._run(["logits"], batch)
        return logits

    def _run(self, names: Sequence[str], batch: Batch) -> list[np.ndarray]:
        feed = {m.value: batch.values[m] for m in MODALITIES}
        feed |= {f"{m}_mask": batch.masks[m] for m in MODALITIES}
        outputs: list[np.ndarray]
        try:
            outputs = self._session.run(names, feed)
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the graph failed on {self.provider!r}: {error}") from error
        if not all(np.isfinite(output).all() for output in outputs):
            raise BundleError("the graph gave an answer that is not a finite number")
        return outputs

    def prepare(self, studies: Sequence[Study]) -> list[Prepared]:
        """Decode and normalise studies as the bundle's model reads them.

        Raises:
            InputError: A study cannot be used.
        """
        settings = self.bundle.manifest.prepare
        return [prepare(study, settings, self.tokenizer) for study in studies]

    def _predict_batch(self, studies: Sequence[Study]) -> Iterator[Prediction]:
        manifest = self.bundle.manifest
        prepared = self.prepare(studies)
        batch = collate(prepared, manifest.prepare)
        logits, *memory = self._run(["logits", *(MEMORY if self.writer else ())], batch)
        for i, one in enumerate(prepared):
            subset = subset_name(one.present)
            tasks = answer(manifest.tasks, logits[i], manifest.calibration, subset)
            if manifest.trust is not None:
                tasks = judge_answers(tasks, subset, manifest.trust)
            text = None
            if self.writer is not None and manifest.text is not None:
                tokens, mask = memory
                record = manifest.text.record
                layout = Layout(
                    frames=batch.masks[Modality.IMAGE].shape[1],
                    pieces=batch.masks[Modality.NOTE].shape[1],
                    cells=record.cells,
                    mel_step=record.mel_step,
                )
                text = say_findings(record, tasks, self.writer, tokens[i], mask[i], layout, one)
            yield Prediction(
                tasks=tasks,
                used=one.present,
                remarks=one.remarks,
                model_digest=self.bundle.digest,
                text=text,
                novelty=self.novelty.p_values(describe(one)) if self.novelty.usual else {},
                promises=None if manifest.trust is None else manifest.trust.settings,
            )
