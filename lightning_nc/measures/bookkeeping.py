"""The quantities that are logged with every measurement of any measure."""

from lightning_nc.measures.quantity import Curve, Panel, Quantity

GROUP = "~bookkeeping/"  # starts their keys in TensorBoard, which shows "~" after all letters

BOOKKEEPING = (
    Quantity(
        "epochs_completed",
        "",
        "Epochs completed",
        "Training epochs completed before the measurement, with a fraction within an epoch; the "
        "x-axis for plots.",
    ),
    Quantity(
        "seconds",
        "",
        "Seconds",
        "Duration of the measurement; callbacks that share a pass each log its total duration.",
        worry="If it is a large part of an epoch: raise every_n_epochs or use fewer samples.",
        chart=Curve(
            Panel(
                "Seconds per measurement",
                "Duration of each measurement, for all callbacks that share its pass.",
                logarithmic=True,
            ),
            "seconds",
        ),
    ),
    Quantity(
        "figure_seconds",
        "",
        "Seconds for figures",
        "Duration of drawing and logging the figures of the measurement before; 0 if none were "
        "drawn.",
        worry='If it is a large part of an epoch: pass figures="last" or False.',
    ),
    Quantity("num_classes", "K", "Classes", "Number of classes that were measured."),
    Quantity("num_samples", "N", "Samples", "Number of samples that were measured."),
    Quantity(
        "failures",
        "",
        "Failures",
        "Number of measurements skipped so far.",
        ideal="0",
        worry="If it is not 0: the warning names the process and the reason.",
        best="low",
        worry_above=1.0,
    ),
)
