"""Measurements as matplotlib figures."""

from lightning_nc.figures.class_vectors import class_size_figure as class_size_figure
from lightning_nc.figures.class_vectors import cosine_figure as cosine_figure
from lightning_nc.figures.class_vectors import cosine_histogram_figure as cosine_histogram_figure
from lightning_nc.figures.class_vectors import prediction_figure as prediction_figure
from lightning_nc.figures.elasticity import similarity_figure as similarity_figure
from lightning_nc.figures.epochs import collapse_figure as collapse_figure
from lightning_nc.figures.epochs import over_epochs_figure as over_epochs_figure
from lightning_nc.figures.law import draw_law as draw_law
from lightning_nc.figures.law import separation_figure as separation_figure
from lightning_nc.figures.plotting import plotted as plotted
from lightning_nc.figures.separation import class_quantiles_figure as class_quantiles_figure
from lightning_nc.figures.separation import class_separation_figure as class_separation_figure
from lightning_nc.figures.separation import layers_over_epochs_figure as layers_over_epochs_figure
from lightning_nc.figures.separation import (
    separation_comparison_figure as separation_comparison_figure,
)
from lightning_nc.figures.snapshot import save_snapshots as save_snapshots
from lightning_nc.figures.snapshot import snapshot_figure as snapshot_figure
