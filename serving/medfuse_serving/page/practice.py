"""How studies come to the page and are read there."""

from dataclasses import dataclass

from medfuse_serving.worklist.store import Store


@dataclass(frozen=True, slots=True)
class Practice:
    """How studies come to the page and are read there.

    Attributes:
        store: The worklist; None where there is none.
        read_first: Whether an answer is computed only after the reader's own impression is kept.
    """

    store: Store | None = None
    read_first: bool = False
