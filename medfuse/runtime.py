"""A bundle's graphs in, ONNX Runtime sessions out: the network that answers and differentiates.

Needs onnxruntime or onnxruntime-gpu, and no torch.
"""

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import onnxruntime
from jaxtyping import Bool, Float, Int64
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors

from medfuse.attribution.network import Cells, Gradients, Inputs
from medfuse.bundle import (
    ANSWER_GRAPH,
    EXPLAIN_GRAPH,
    GRAPH,
    TEXT_GRAPH,
    TIE,
    WEIGHTS,
    ArraySpec,
    Bundle,
    tie_digest,
)
from medfuse.errors import BundleError
from medfuse.text.writing import Steps
from medfuse.types import MODALITIES, Modality

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    # TF32 keeps 10 bits of a product's mantissa, far outside the parity the bundle promises.
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
    "cpu": ("CPUExecutionProvider", {}),
}
"""Names of execution providers, the preferred first, with ONNX Runtime's names and options."""

ROWS = {"cpu": 1, "cuda": 4}
"""Versions of a study that go through the graph at once, by provider: on a core of a processor more
than one are no faster, since one fills it, and take as many times the memory."""

CELLS_OF_ROWS = 32
"""Frames of all those versions together, at most, so that a CT needs no more memory."""

DTYPES = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}

# ONNX Runtime's exceptions have no common base of their own.
RUNTIME_ERRORS = (
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


@dataclass(frozen=True, slots=True)
class Weights:
    """Tensors that several sessions share.

    Attributes:
        data: The file that the graphs name, in the format of the package safetensors.
        arrays: What is in it, by name.
    """

    data: bytes = b""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


def read_weights(data: bytes) -> Weights:
    """Read the file that a bundle's graphs share.

    Raises:
        BundleError: It isn't safetensors.
    """
    try:
        return Weights(data, load_safetensors(data))
    except (SafetensorError, ValueError) as error:
        raise BundleError(
            f"{WEIGHTS} is not a safetensors file; export the bundle again"
        ) from error


def find_tensors(data: bytes) -> dict[str, tuple[int, int]]:
    """Give the first byte of each tensor in a safetensors file, and the one after its last."""
    # The format: a length of eight bytes, so much JSON, then the tensors' bytes.
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    start = 8 + length
    return {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def load_graph(
    name: str, data: bytes, weights: Weights, provider: str, threads: int | None = None
) -> onnxruntime.InferenceSession:
    """Load a graph from its bytes, and its weights from memory.

    Args:
        name: Of the file, for messages.
        data: The graph.
        weights: What it may name as external.
        provider: A key of `PROVIDERS`.
        threads: That share the work of one run; as many as this process may use by default.

    Raises:
        BundleError: ONNX Runtime can't.
    """
    options = onnxruntime.SessionOptions()
    # ONNX Runtime counts the machine's cores, not those this process may use, and by default its
    # idle threads spin, which on a small server takes the core another request needs.
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4  # a fallback is reported by the caller, once and in our words
    here = onnxruntime.get_available_providers()
    providers = [PROVIDERS[key] for key in dict.fromkeys((provider, "cpu"))]
    try:
        if weights.data:
            options.add_external_initializers_from_files_in_memory(
                [WEIGHTS], [weights.data], [len(weights.data)]
            )
        return onnxruntime.InferenceSession(
            data, options, providers=[entry for entry in providers if entry[0] in here]
        )
    except RUNTIME_ERRORS as error:
        raise BundleError(f"ONNX Runtime cannot load {name}: {error}") from error


def check_graph(
    name: str,
    session: onnxruntime.InferenceSession,
    inputs: Sequence[ArraySpec],
    outputs: Sequence[ArraySpec],
) -> None:
    """Refuse a graph whose inputs or outputs aren't the manifest's.

    Axes with a fixed length must have it; the name of a free axis is the manifest's own affair.

    Raises:
        BundleError: They aren't.
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
        for key in sorted(found.keys() | declared.keys()):
            if found.get(key) != declared.get(key):
                raise BundleError(
                    f"{kind} {key!r} of {name} is {found.get(key)} and the manifest says "
                    f"{declared.get(key)}; export the bundle again"
                )


def choose_provider(provider: str | None) -> str:
    """Name the provider to use, the preferred one of those that are here by default.

    Raises:
        BundleError: There is no provider of that name.
    """
    if provider is None:
        here = onnxruntime.get_available_providers()
        return next(name for name, (full, _) in PROVIDERS.items() if full in here)
    if provider not in PROVIDERS:
        raise BundleError(f"no execution provider {provider!r}; known are {', '.join(PROVIDERS)}")
    return provider


def provider_in_use(session: onnxruntime.InferenceSession) -> str:
    """Name the provider that a session runs on."""
    first = session.get_providers()[0]
    return next((name for name, (full, _) in PROVIDERS.items() if full == first), first)


def usable_cores() -> int:
    """Count the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class OnnxNetwork:
    """A `Network` over graphs that answer and differentiate; safe to use from several threads.

    Versions of a study are independent, so each core takes some through a session of one thread:
    no core waits for another between two operators.

    Args:
        answer: The graph that answers from embeddings.
        explain: The graph that differentiates as well.
        weights: Which both share.
        embedding: The name of the word pieces' table among them.
        targets: The name of each logit, in order.
        provider: A key of `PROVIDERS`.
    """

    def __init__(
        self,
        answer: bytes,
        explain: bytes,
        weights: Weights,
        embedding: str,
        targets: Sequence[str],
        provider: str = "cpu",
    ) -> None:
        if embedding not in weights.arrays:
            raise BundleError(f"{WEIGHTS} has no tensor {embedding!r}; export the bundle again")
        self.provider = provider
        self._targets = tuple(targets)
        self._table = weights.arrays[embedding]
        self._graphs, self._weights = (answer, explain), weights
        self._cores = usable_cores() if provider == "cpu" else 1

    @property
    def targets(self) -> tuple[str, ...]:
        """The name of each logit, in order."""
        return self._targets

    @cached_property
    def answering(self) -> onnxruntime.InferenceSession:
        """The session that answers, loaded at first use."""
        return load_graph(ANSWER_GRAPH, self._graphs[0], self._weights, self.provider, 1)

    @cached_property
    def explaining(self) -> onnxruntime.InferenceSession:
        """The session that differentiates, loaded at first use."""
        return load_graph(EXPLAIN_GRAPH, self._graphs[1], self._weights, self.provider, 1)

    def embed(self, pieces: Int64[np.ndarray, "n l"]) -> Float[np.ndarray, "n l e"]:
        """Look up word pieces."""
        return np.asarray(self._table[pieces])

    def answer(self, inputs: Inputs) -> Float[np.ndarray, "n k"]:
        """Give the logits of every version.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        (logits,) = self._run(self.answering, ("logits",), inputs, None)
        return logits

    def differentiate(
        self, inputs: Inputs, weights: Float[np.ndarray, "n k"], wanted: Collection[Modality]
    ) -> Gradients:
        """Give the gradient of each version's weighted sum of logits to the wanted modalities.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        modalities = [m for m in MODALITIES if m in wanted]
        names = ("logits", *(f"{m}_gradient" for m in modalities))
        logits, *found = self._run(self.explaining, names, inputs, weights)
        return Gradients(logits, dict(zip(modalities, found, strict=True)))

    def see(self, inputs: Inputs, weights: Float[np.ndarray, "n k"]) -> Cells:
        """Give the image encoder's last map with the gradient to it.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        names = ("logits", "image_cells", "image_cells_gradient")
        return Cells(*self._run(self.explaining, names, inputs, weights))

    def attend_frames(self, inputs: Inputs) -> Float[np.ndarray, "n s"]:
        """Say how much of the image's embedding comes from each frame; 1 over the real ones.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        (shares,) = self._run(self.answering, ("frame_attention",), inputs, None)
        return shares

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        names: Sequence[str],
        inputs: Inputs,
        weights: Float[np.ndarray, "n k"] | None,
    ) -> list[np.ndarray]:
        """Run the versions in parts, several at once, and join the results in their order."""
        parts = list(self._split(inputs))

        def run(part: slice) -> list[np.ndarray]:
            found: list[np.ndarray] = session.run(names, _feed(inputs, weights, part))
            return found

        try:
            if len(parts) == 1:
                results = [run(parts[0])]
            else:
                with ThreadPoolExecutor(min(self._cores, len(parts))) as pool:
                    results = list(pool.map(run, parts))
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the graph failed on {self.provider!r}: {error}") from error
        joined = [np.concatenate(arrays) for arrays in zip(*results, strict=True)]
        if not all(np.isfinite(array).all() for array in joined):
            raise BundleError("the graph gave an explanation that is not a finite number")
        return joined

    def _split(self, inputs: Inputs) -> Iterator[slice]:
        """Share versions out evenly: as few in one part as keeps every core at work."""
        count = len(inputs)
        frames = inputs.masks[Modality.IMAGE].shape[1]
        most = max(1, min(ROWS[self.provider], CELLS_OF_ROWS // frames))
        rows = max(1, min(most, -(-count // self._cores)))
        for start in range(0, count, rows):
            yield slice(start, min(start + rows, count))


def _feed(
    inputs: Inputs, weights: Float[np.ndarray, "n k"] | None, part: slice
) -> dict[str, np.ndarray]:
    feed = {
        "image": inputs.values[Modality.IMAGE],
        "note_embeddings": inputs.values[Modality.NOTE],
        "voice": inputs.values[Modality.VOICE],
        **{f"{m}_mask": inputs.masks[m] for m in MODALITIES},
    }
    taken = {name: np.ascontiguousarray(array[part]) for name, array in feed.items()}
    if weights is not None:
        taken["weights"] = np.ascontiguousarray(weights[part], dtype=np.float32)
    return taken


def load_weights(bundle: Bundle) -> Weights:
    """Read a bundle's shared weights; a graph that holds its own needs none."""
    return read_weights(bundle.read(WEIGHTS)) if WEIGHTS in bundle.manifest.files else Weights()


def open_network(
    bundle: Bundle,
    provider: str | None = None,
    *,
    weights: Weights | None = None,
    randomise: int | None = None,
) -> OnnxNetwork:
    """Load what a bundle explains its answers with, each file verified as it is read.

    Args:
        bundle: The opened bundle.
        provider: A key of `PROVIDERS`; the first that ONNX Runtime has here by default.
        weights: The bundle's, if they are loaded already.
        randomise: Shuffle the numbers of every tensor by this seed: a control whose answers and
            maps must tell nothing (Adebayo et al. 2018, "Sanity Checks for Saliency Maps").

    Raises:
        BundleError: The bundle has no explanations, they belong to another model, or ONNX Runtime
            can't load them.
    """
    record = bundle.manifest.explain
    if record is None:
        raise BundleError(
            f"{bundle.path}: the bundle was exported without explanations; export it again with "
            "them"
        )
    whole = weights or load_weights(bundle)
    if randomise is not None:
        whole = shuffle_weights(whole, randomise)
    network = OnnxNetwork(
        bundle.read(ANSWER_GRAPH),
        bundle.read(EXPLAIN_GRAPH),
        whole,
        record.embedding,
        [target for task in bundle.manifest.tasks for target in task.targets],
        choose_provider(provider),
    )
    check_graph(EXPLAIN_GRAPH, network.explaining, record.inputs, record.outputs)
    check_graph(ANSWER_GRAPH, network.answering, record.inputs[:-1], record.answers)
    _check_tie(
        bundle, {ANSWER_GRAPH: network.answering, EXPLAIN_GRAPH: network.explaining}, "explain"
    )
    return network


def _check_tie(
    bundle: Bundle, sessions: Mapping[str, onnxruntime.InferenceSession], verb: str
) -> None:
    """Refuse graphs that were made from another model than the one that answers."""
    tie = tie_digest(bundle.read(GRAPH), bundle.read(WEIGHTS))
    for name, session in sessions.items():
        if session.get_modelmeta().custom_metadata_map.get(TIE) != tie:
            raise BundleError(
                f"{bundle.path}: {name} was made from another model than {GRAPH}, and would "
                f"{verb} answers that this one does not give; copy the folder again from where it "
                "was exported"
            )


class OnnxWriter:
    """A `Writer` over the graph that writes findings text; safe to use from several threads.

    Args:
        session: Of that graph.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session

    def __call__(
        self,
        memory: Float[np.ndarray, "b n d"],
        mask: Bool[np.ndarray, "b n"],
        study: Int64[np.ndarray, " r"],
        finding: Int64[np.ndarray, " r"],
        words: Int64[np.ndarray, "r l"],
    ) -> Steps:
        """Say what comes next after every word.

        Raises:
            BundleError: The graph failed, or gave something that is not a number.
        """
        feed = {
            "memory": memory,
            "memory_mask": mask,
            "study": study,
            "finding": finding,
            "words": words,
        }
        try:
            logits, energy = self.session.run(["word_logits", "energy"], feed)
        except RUNTIME_ERRORS as error:
            raise BundleError(f"the graph that writes failed: {error}") from error
        if not (np.isfinite(logits).all() and np.isfinite(energy).all()):
            raise BundleError("the graph that writes gave something that is not a finite number")
        return Steps(logits, energy)


def open_writer(bundle: Bundle, provider: str, weights: Weights) -> OnnxWriter:
    """Load what a bundle writes findings text with.

    Args:
        bundle: The opened bundle.
        provider: A key of `PROVIDERS`.
        weights: The bundle's.

    Raises:
        BundleError: It writes none, its graph belongs to another model or isn't the manifest's, or
            ONNX Runtime can't load it.
    """
    record = bundle.manifest.text
    if record is None:
        raise BundleError(
            f"{bundle.path}: the bundle's model writes no findings text; train one with "
            "model.findings_text and objectives.findings_text"
        )
    session = load_graph(TEXT_GRAPH, bundle.read(TEXT_GRAPH), weights, provider)
    check_graph(TEXT_GRAPH, session, record.inputs, record.outputs)
    _check_tie(bundle, {TEXT_GRAPH: session}, "put into words")
    return OnnxWriter(session)


def shuffle_weights(weights: Weights, seed: int) -> Weights:
    """Shuffle the numbers within every tensor, so that nothing learnt is left but their spread."""
    rng = np.random.default_rng(seed)
    data = bytearray(weights.data)
    # The places of the tensors in the file stay, since the graphs name them.
    for name, (start, end) in sorted(find_tensors(weights.data).items()):
        numbers = weights.arrays[name].reshape(-1)
        data[start:end] = rng.permutation(numbers).tobytes()
    return read_weights(bytes(data))
