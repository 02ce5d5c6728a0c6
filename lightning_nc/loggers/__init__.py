"""Log figures, tables and panels to any of Lightning's loggers.

Loggers are recognised by class name: each of Lightning's two namespaces has its own class, and both
work in either Trainer.
"""

from lightning_nc.loggers.files import local_folder_of
from lightning_nc.loggers.films import log_film, save_film
from lightning_nc.loggers.images import log_figure, save_figure
from lightning_nc.loggers.kinds import send_alert
from lightning_nc.loggers.panels import arrange_panels
from lightning_nc.loggers.tables import log_table, takes_tables

__all__ = [
    "arrange_panels",
    "local_folder_of",
    "log_figure",
    "log_film",
    "log_table",
    "save_figure",
    "save_film",
    "send_alert",
    "takes_tables",
]
