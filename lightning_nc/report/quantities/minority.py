"""What `MinorityCollapse` logs."""

from lightning_nc.report.quantities.quantity import Quantity, high, near_one

# K is not logged, and cosines below -1/(K-1) are no better: of cosines there is no best
QUANTITIES = (
    Quantity(
        "cos_weights",
        "Cosine of rare rows",
        "Mean cosine between the classifier's rows of rare classes; at 1 they are one.",
        "-1/(K-1)",
        "Above 0.95 the classifier hardly tells the rare classes apart.",
        alarming=lambda cosine: cosine > 0.95,
    ),
    Quantity(
        "predicted_cos",
        "Predicted cosine",
        "What the layer-peeled model has for these rows, at the measured class counts and norms.",
        "",
        "If the measured cosine is far above: more than class sizes draws the classes together.",
    ),
    Quantity(
        "cos_means",
        "Cosine of rare means",
        "Mean cosine between the centred class means of rare classes.",
        "-1/(K-1)",
        "If it nears 1: the features themselves do not tell the rare classes apart.",
        alarming=lambda cosine: cosine > 0.95,
    ),
    Quantity(
        "cos_majority_weights",
        "Cosine of frequent rows",
        "Mean cosine between the classifier's rows of frequent classes, to compare with.",
        "-1/(K-1)",
        "If it rises, too: the trouble is not with rare classes alone.",
    ),
    Quantity(
        "norm_ratio",
        "Norm ratio",
        "Mean norm of the rows of rare classes by that of frequent ones.",
        "1",
        "Far below 1 the classifier hardly ever decides for a rare class.",
        near_one,
    ),
    Quantity(
        "minority_accuracy",
        "Accuracy on rare classes",
        "Mean accuracy over the rare classes, on the probe.",
        "1",
        "If it lags far behind the accuracy on all classes.",
        high,
    ),
    Quantity(
        "imbalance_ratio",
        "Imbalance R",
        "Training samples of a frequent class by those of a rare one.",
        "",
        "Above the critical R, rare rows coincide in the model.",
    ),
    Quantity(
        "critical_ratio",
        "Critical R",
        "The imbalance from which on the layer-peeled model has all rare rows coincide.",
        "",
        "If the imbalance R is above it.",
    ),
    Quantity(
        "energy_weights",
        "Energy of rows",
        "Mean squared norm of the classifier's rows, E_W in the layer-peeled model.",
        "",
        "If it grows without bound: weight decay does not hold the classifier.",
    ),
    Quantity(
        "energy_features",
        "Energy of features",
        "Mean squared norm of last-layer features, E_H in the layer-peeled model.",
        "",
        "If it grows without bound: nothing holds the features.",
    ),
    Quantity(
        "energy_features_centered",
        "Centred energy",
        "The same about the mean of the class means.",
        "",
        "If it is far below the other: the features share a large common part.",
    ),
)
