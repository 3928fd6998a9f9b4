"""The fused score with activations in place of gradients: a control that takes no gradient."""

from __future__ import annotations

from gradbench.methods.activation_oneclass import ActivationOneClass
from gradbench.methods.gradient_fused import GradientFused


class ActivationFused(GradientFused):
    """s = z(energy) + max(0, z(log d)), d the distance of `activation_oneclass`.

    The formula of `gradient_fused` with activations in place of gradients; it takes one forward
    pass. What remains between the two is what the gradients add.
    """

    info = ActivationOneClass.info

    def __init__(self):
        self._join(ActivationOneClass(), knn=False)
