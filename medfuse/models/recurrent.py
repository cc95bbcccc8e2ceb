"""Long short-term memory: a sequence in, the hidden state after each of its steps out."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Lstm(nn.LSTM):
    """Layers of long short-term memory (Hochreiter & Schmidhuber 1997) in one direction.

    Training and answering in torch run torch's own. Tracing that would unroll it to the length of
    the example, so an exported graph gets ONNX's operator of the name instead, one a layer.

    Args:
        inputs: Numbers of a step.
        hidden: Of a state.
        layers: One upon the other.
    """

    def __init__(self, inputs: int, hidden: int, layers: int = 1) -> None:
        super().__init__(inputs, hidden, layers, batch_first=True)

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "b n c"]
    ) -> Float[Tensor, "b n h"]:
        """Give the last layer's states; each has seen what came before it, and nothing after."""
        if torch.compiler.is_exporting():
            return self._as_onnx(x)
        states: Tensor = super().forward(x)[0]
        return states

    def _as_onnx(self, x: Float[Tensor, "b n c"]) -> Float[Tensor, "b n h"]:
        x = x.transpose(0, 1)
        steps, studies, _ = x.shape
        for layer in range(self.num_layers):
            weights, recurrence, *biases = (
                _reorder(getattr(self, f"{name}_l{layer}"))
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            x = torch.onnx.ops.symbolic(
                "LSTM",
                [x, weights[None], recurrence[None], torch.cat(biases)[None]],
                {"hidden_size": self.hidden_size},
                dtype=x.dtype,
                shape=(steps, 1, studies, self.hidden_size),
                version=14,
            ).squeeze(1)
        return x.transpose(0, 1)


def _reorder(gates: Float[Tensor, "g ..."]) -> Float[Tensor, "g ..."]:
    """Bring torch's input, forget, cell and output gates to the order input, output, forget, cell.

    ONNX's, as its operator LSTM says.
    """
    h = len(gates) // 4
    return torch.cat([gates[:h], gates[3 * h :], gates[h : 3 * h]])
