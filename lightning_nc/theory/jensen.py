"""Why outputs collapse: replacing them by the means of their classes never raises the risk."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def cross_entropy_risk(
    outputs: Tensor, labels: Tensor, probabilities: Tensor | None = None
) -> Tensor:
    r"""The expected cross-entropy loss of the outputs h(x), in nats.

    .. math:: R(h) = \sum_i P(x_i) \left( \ln \sum_j e^{h_j(x_i)} - h_{y_i}(x_i) \right)

    Args:
        outputs: ``h(x_i)``, shape ``(n, K)``.
        labels: Class indices ``0 .. K - 1``, shape ``(n,)``.
        probabilities: ``P(x_i)`` >= 0, scaled to the sum 1, shape ``(n,)``; equal by default.

    Returns:
        A float64 scalar >= 0, with all digits also where outputs are certain and it is tiny.

    Raises:
        ValueError: If shapes, labels or probabilities are not as described.

    Example:
        The losses are ln 2 and ln(1 + exp(-2)), of which the second counts three times:

        >>> h, y = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0])
        >>> cross_entropy_risk(h, y, torch.tensor([0.25, 0.75]))  # (0.6931 + 3 * 0.1269) / 4
        tensor(0.2685, dtype=torch.float64)

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    P = _probabilities(outputs, labels, probabilities)
    h, own = outputs.double(), labels[:, None]
    # ln(1 + exp(others - own)): next to its own class, 1 would round the others away
    others = h.scatter(1, own, -torch.inf).logsumexp(1) - h.gather(1, own).squeeze(1)
    return P @ -logsigmoid(-others)


def class_mean_outputs(
    outputs: Tensor, labels: Tensor, probabilities: Tensor | None = None
) -> Tensor:
    r"""The collapsed outputs: each is replaced by the mean over its class.

    .. math:: \bar h(x) = z_k = \frac{1}{P(C_k)} \sum_{x_i \in C_k} P(x_i) \, h(x_i)
        \quad \text{for } x \in C_k

    The cross-entropy is a convex function of the output, so Jensen's inequality gives
    :math:`R(\bar h) \le R(h)`. It is strictly convex but for the direction (1, .., 1), which the
    softmax does not see. Over all functions into a convex compact set of outputs, every minimiser
    of the risk is therefore constant on each class, up to that direction.

    Args:
        outputs: ``h(x_i)``, shape ``(n, K)``.
        labels: Class indices, shape ``(n,)``.
        probabilities: ``P(x_i)`` >= 0, shape ``(n,)``; equal by default.

    Returns:
        Outputs of the same shape, float64; NaN for classes of probability 0.

    Raises:
        ValueError: If shapes, labels or probabilities are not as described.

    Example:
        The risk falls from (ln 2 + ln(1 + exp(-2))) / 2 to ln(1 + exp(-1)):

        >>> h, y = torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 0])
        >>> class_mean_outputs(h, y)
        tensor([[1., 0.],
                [1., 0.]], dtype=torch.float64)
        >>> cross_entropy_risk(h, y), cross_entropy_risk(class_mean_outputs(h, y), y)
        (tensor(0.4100, dtype=torch.float64), tensor(0.3133, dtype=torch.float64))

    Source:
        E & Wojtowytsch (2021), "On the emergence of simplex symmetry in the final and penultimate
        layers of neural network classifiers", MSML 2021, PMLR 145.
    """
    P = _probabilities(outputs, labels, probabilities)
    of_class = torch.zeros(int(labels.max()) + 1, len(P), dtype=P.dtype, device=P.device)
    of_class[labels, torch.arange(len(P), device=P.device)] = P
    z = of_class @ outputs.double() / of_class.sum(1, keepdim=True)
    return z[labels]


def _probabilities(outputs: Tensor, labels: Tensor, given: Tensor | None) -> Tensor:
    """Probabilities of the samples with the sum 1, float64; raise if what is given is wrong."""
    if outputs.ndim != 2 or len(outputs) == 0 or labels.shape != outputs.shape[:1]:
        raise ValueError(
            "Need outputs of n >= 1 samples, shape (n, K), and labels, shape (n,); got "
            f"{tuple(outputs.shape)} and {tuple(labels.shape)}."
        )
    K = outputs.shape[1]
    astray = labels[(labels < 0) | (labels >= K)]
    if labels.is_floating_point() or len(astray):
        what = f"{astray[0].item()}" if len(astray) else f"{labels.dtype}"
        raise ValueError(f"Labels must be integers from 0 to {K - 1}, got {what}.")
    P = torch.ones(len(outputs)) if given is None else given
    P = P.to(outputs.device, torch.float64)
    if P.shape != labels.shape or not bool((P >= 0).all()) or not 0 < float(P.sum()) < math.inf:
        raise ValueError(
            "Need a probability >= 0 for each sample, with a positive and finite sum; got "
            f"{P.tolist() if P.numel() < 10 else tuple(P.shape)}."
        )
    return P / P.sum()
