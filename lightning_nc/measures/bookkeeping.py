"""What is logged of every measurement, whatever is measured."""

from lightning_nc.measures.quantity import Curve, Panel, Quantity

BOOKKEEPING = (
    Quantity(
        "epochs_completed",
        "",
        "Epochs completed",
        "Training epochs before the measurement, with a fraction within an epoch; plot against it.",
    ),
    Quantity(
        "seconds",
        "",
        "Seconds",
        "What the measurement cost; callbacks that share one each say what it cost in all.",
        worry="If it is a large part of an epoch: raise every_n_epochs, take fewer samples.",
        chart=Curve(
            Panel(
                "Seconds per measurement",
                "What each measurement took; callbacks that share one each say what it took in "
                "all.",
                logarithmic=True,
            ),
            "seconds",
        ),
    ),
    Quantity(
        "failures",
        "",
        "Failures",
        "How many measurements were skipped so far.",
        ideal="0",
        worry="If it is not 0: the warning says on which process, and why.",
        best="low",
        worry_above=1.0,
    ),
)
