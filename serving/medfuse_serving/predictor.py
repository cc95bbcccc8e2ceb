"""A bundle and studies in, predictions out, on ONNX Runtime alone."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from jaxtyping import Float32
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from medfuse.bundle import GRAPH, TOKENIZER, ArraySpec, open_bundle
from medfuse.data.note import read_tokenizer
from medfuse.data.prepare import collate, prepare
from medfuse.errors import BundleError, MedfuseError, SettingsError
from medfuse.golden import check_golden, read_golden
from medfuse.trust.calibration import answer
from medfuse.types import MODALITIES, Batch, Prediction, Study

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    # TF32 keeps 10 bits of a product's mantissa, far outside the parity the bundle promises.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "cpu": ("CPUExecutionProvider", {}),
}
"""Names of execution providers, the preferred first, with ONNX Runtime's names and options."""

BATCH_STUDIES = 8
"""Studies that go through the graph at once; bounds the memory of a long list."""

DTYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}

# ONNX Runtime's exceptions have no common base of their own.
_RUNTIME_ERRORS = (
    ort_errors.EPFail,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)

logger = logging.getLogger(__name__)


class Predictor:
    """A verified bundle, loaded and ready; safe to use from several threads at once.

    Attributes:
        bundle: The opened bundle; its `digest` names the model.
        provider: The execution provider in use, a key of `PROVIDERS`.
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
        wanted = _choose_provider(provider)
        self._session = _load_graph(self.bundle.read(GRAPH), wanted)
        _check_graph(self._session, self.bundle.manifest.inputs, self.bundle.manifest.outputs)
        self.provider = _provider_in_use(self._session)
        if self.provider != wanted:
            message = (
                f"execution provider {wanted!r} was wanted and {self.provider!r} is in use; "
                "install its drivers and onnxruntime-gpu, or choose another provider"
            )
            if strict:
                raise BundleError(message)
            logger.warning("%s", message)

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

    def check_golden(self) -> float:
        """Answer the golden study with every subset of its modalities.

        Returns:
            The largest difference from the expected logits, relative to their scale.

        Raises:
            BundleError: An answer is outside the tolerance; this machine runs the model wrongly.
        """
        golden = read_golden(self.bundle)
        try:
            predictions = self.predict(golden.studies)
        except BundleError:
            raise
        except MedfuseError as error:
            raise BundleError(f"the golden study cannot be read here: {error}") from error
        return check_golden(golden, predictions)

    def run(self, batch: Batch) -> Float32[np.ndarray, "b k"]:
        """Put one batch through the graph and give its logits.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        feed = {m.value: batch.values[m] for m in MODALITIES}
        feed |= {f"{m}_mask": batch.masks[m] for m in MODALITIES}
        logits: Float32[np.ndarray, "b k"]
        try:
            (logits,) = self._session.run(["logits"], feed)
        except _RUNTIME_ERRORS as error:
            raise BundleError(f"the graph failed on {self.provider!r}: {error}") from error
        if not np.isfinite(logits).all():
            raise BundleError("the graph gave an answer that is not a finite number")
        return logits

    def _predict_batch(self, studies: Sequence[Study]) -> Iterator[Prediction]:
        manifest = self.bundle.manifest
        prepared = [prepare(study, manifest.prepare, self.tokenizer) for study in studies]
        logits = self.run(collate(prepared, manifest.prepare))
        for one, its_logits in zip(prepared, logits, strict=True):
            yield Prediction(
                tasks=answer(manifest.tasks, its_logits, manifest.calibration),
                used=one.present,
                remarks=one.remarks,
                model_digest=self.bundle.digest,
            )


def _choose_provider(provider: str | None) -> str:
    if provider is None:
        here = onnxruntime.get_available_providers()
        return next(name for name, (full, _) in PROVIDERS.items() if full in here)
    if provider not in PROVIDERS:
        raise BundleError(f"no execution provider {provider!r}; known are {', '.join(PROVIDERS)}")
    return provider


def _load_graph(data: bytes, provider: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    # ONNX Runtime counts the machine's cores, not those this process may use, and by default its
    # idle threads spin, which on a small server takes the core another request needs.
    options.intra_op_num_threads = _usable_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # a fallback is reported here, once and in our words
    here = onnxruntime.get_available_providers()
    providers = [PROVIDERS[name] for name in dict.fromkeys((provider, "cpu"))]
    try:
        return onnxruntime.InferenceSession(
            data, options, providers=[entry for entry in providers if entry[0] in here]
        )
    except _RUNTIME_ERRORS as error:
        raise BundleError(f"ONNX Runtime cannot load {GRAPH}: {error}") from error


def _check_graph(
    session: onnxruntime.InferenceSession,
    inputs: Sequence[ArraySpec],
    outputs: Sequence[ArraySpec],
) -> None:
    """Refuse a graph whose inputs or outputs aren't the manifest's.

    Axes with a fixed length must have it; the name of a free axis is the manifest's own affair.
    """
    for kind, nodes, specs in (
        ("input", session.get_inputs(), inputs),
        ("output", session.get_outputs(), outputs),
    ):
        found = {
            node.name: (node.type, tuple(a if isinstance(a, int) else None for a in node.shape))
            for node in nodes
        }
        declared = {
            spec.name: (
                DTYPES[spec.dtype],
                tuple(a if isinstance(a, int) else None for a in spec.axes),
            )
            for spec in specs
        }
        for name in sorted(found.keys() | declared.keys()):
            if found.get(name) != declared.get(name):
                raise BundleError(
                    f"{kind} {name!r} of {GRAPH} is {found.get(name)} and the manifest says "
                    f"{declared.get(name)}; export the bundle again"
                )


def _provider_in_use(session: onnxruntime.InferenceSession) -> str:
    first = session.get_providers()[0]
    return next((name for name, (full, _) in PROVIDERS.items() if full == first), first)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
