"""The law of next-token prediction, measured while a language model trains."""

from collections.abc import Sequence

from lightning_nc.callbacks.measure_callback import MeasureCallback
from lightning_nc.callbacks.record import Figures, OnError
from lightning_nc.callbacks.schedule import When
from lightning_nc.functional.next_token_prediction import Normalization
from lightning_nc.measures.next_token_law import NextTokenMeasure
from lightning_nc.network.points import Layers, Pool
from lightning_nc.passes.probe import Probe


class NextTokenLaw(MeasureCallback):
    """Callback that logs how well each layer predicts the next token, and ``PR_l ~ c rho^l``.

    In a trained language model every layer multiplies the prediction residual ``PR = 1 - R^2`` by
    about the same ratio rho. R^2 is that of the number of the next token in the vocabulary,
    predicted by least squares, with an intercept, from the normalised features of a position.
    Training is unchanged, bit for bit.

    Logged under these keys, with the name of the probe for ``{p}``:

    - ``next_token/{p}/rho``: Every layer multiplies the prediction residual PR by about this
      factor.
    - ``next_token/{p}/pearson_r``: Correlation of ln PR with depth: how evenly the layers
      contribute.
    - ``next_token/{p}/total``: What remains of PR after all layers: PR of the last layer divided by
      PR of the first.
    - ``next_token_layers/{p}/{layer}``: Prediction residual 1 - R^2: the share of the variance of
      the next token, as a number, that a linear map of the features does not explain.
    - ``next_token/{p}/...``: ``epochs_completed``, ``seconds``, ``figure_seconds``,
      ``num_classes``, ``num_samples``, ``failures`` of each measurement.

    The law is about text as it is, in which some tokens are frequent: give
    ``Probe(..., unpack=next_token, samples_per_class=None)``, which takes all positions of the
    source, up to about a million. By default a probe takes up to 100 positions of each token.
    Tokens that occur once count, too. Labels of whole samples are taken as well, such as the
    token after a window of text: their number is then what is predicted. Where the inputs are no
    tokens, one sentence says so.

    Each process keeps a triangular factor of ``(d + 2)^2`` numbers in float64 for every process and
    layer, and nothing whose size grows with the vocabulary but counts. Layers that do not fit into
    ``Probe(memory_mb=...)`` together are measured one group after another.

    Args:
        layers: ``"blocks"`` (see `lightning_nc.find_blocks`), names or globs as in
            ``named_modules()``, or ``{name: callable}`` where the callable turns the module's
            output into (N, d) features. As in the paper, the embedding is not among the blocks.
        pool: Makes one feature vector per sample where labels are not of positions, as in
            `EquiSeparation`.
        normalization: What is done to each vector of features before: ``"layer_norm"`` or
            ``"rms_norm"``, whichever the network's own final normalisation is, without its weights,
            as the paper does; ``"none"`` for features as they are.
        probe: ``"train"``, ``"val"`` or ``"test"`` for the Trainer's data, or a `Probe`.
        every_n_epochs: Measure before training, after every n-th epoch, and after the last one.
        epochs: Numbers of completed epochs at which to measure instead; 0 is before training.
        when: Whether to measure at the end of training epochs, ``"train_epoch_end"``, or of
            validation, ``"validation_end"``.
        figures: Which figures to log: by default those of the 1st, 2nd, 4th, 8th, ... measurement
            and of the last; ``"all"``, ``"last"`` or False.
        on_error: ``"warn"`` skips a measurement that fails and continues training; ``"raise"``
            stops the run.

    Raises:
        ValueError: If an argument is out of range.

    Example::

        probe = Probe("val", unpack=next_token, samples_per_class=None)
        trainer = Trainer(callbacks=[NextTokenLaw(probe=probe)])

    Source:
        He & Su (2025), "A law of next-token prediction in large language models", Physical Review E
        112, 035317 (arXiv 2408.13442), with the authors' code (github.com/HornHehhf/LLM-ELL).
    """

    def __init__(
        self,
        layers: Layers = "blocks",
        pool: Pool = "auto",
        normalization: Normalization = "layer_norm",
        probe: str | Probe = "train",
        every_n_epochs: int = 1,
        epochs: Sequence[int] | None = None,
        when: When = "train_epoch_end",
        figures: Figures = True,
        on_error: OnError = "warn",
    ) -> None:
        measure = NextTokenMeasure(layers, pool, normalization)
        super().__init__(measure, probe, every_n_epochs, epochs, when, figures, on_error)
