"""The optimiser: AdamW with clipping, and loss scaling where fp16 needs it."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hoserkd.engine.config import TrainConfig
from hoserkd.errors import DivergenceError

SMALLEST_SCALE = 2.0**-16
"""An fp16 loss scale that fell below this overflows whatever it is: the model has diverged."""


def decay_groups(parameters: Iterable[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Return AdamW's parameter groups: matrices and embeddings decay, vectors do not.

    The public code lets everything decay. A pull towards 0 has no meaning for biases, for the
    gains of LayerNorm and for the learnt frequencies, so these are spared.
    """
    wanted = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in wanted if p.dim() > 1], "weight_decay": decay},
        {"params": [p for p in wanted if p.dim() <= 1], "weight_decay": 0.0},
    ]


class Optimiser:
    """One optimiser step: unscale, clip, AdamW, forget the gradients."""

    def __init__(
        self, model: nn.Module, train: TrainConfig, amp: torch.dtype | None,
        further: nn.Module | None = None,
    ) -> None:
        """Optimise the weights of `model`, and of `further` after them."""
        modules = [model] if further is None else [model, further]
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self._clip = train.clip
        self._decays = (train.weight_decay, 0.0)
        self._adamw = torch.optim.AdamW(
            decay_groups(self.parameters, train.weight_decay), lr=train.learning_rate, fused=True)
        device = self.parameters[0].device.type
        self._scaler = torch.amp.GradScaler(device, enabled=amp == torch.float16)

    @property
    def skips_overflow(self) -> bool:
        """Whether a gradient that is not finite is normal: fp16 then skips the step."""
        return self._scaler.is_enabled()

    def backward(self, loss: Float[Tensor, ""]) -> None:
        """Add the gradient of `loss`, scaled for fp16."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> Float[Tensor, ""]:
        """Update the weights and return the gradient's norm before clipping."""
        for group in self._adamw.param_groups:
            group["lr"] = learning_rate
        self._scaler.unscale_(self._adamw)
        norm = nn.utils.clip_grad_norm_(self.parameters, self._clip)
        self._scaler.step(self._adamw)
        self._scaler.update()
        self._adamw.zero_grad(set_to_none=True)
        return norm

    def check_scale(self) -> None:
        """Raise DivergenceError if fp16 can find no scale at which the gradient is finite."""
        if self.skips_overflow and self._scaler.get_scale() < SMALLEST_SCALE:
            raise DivergenceError("the fp16 gradient overflows at every loss scale")

    def state_dict(self) -> dict[str, Any]:
        """Return the state that resumes: tensors and plain values."""
        return {"adamw": self._adamw.state_dict(), "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned; the weight decay stays this one's."""
        self._adamw.load_state_dict(state["adamw"])
        for group, decay in zip(self._adamw.param_groups, self._decays, strict=True):
            group["weight_decay"] = decay
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
