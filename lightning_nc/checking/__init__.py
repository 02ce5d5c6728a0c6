"""A dry run before training: what would be measured, where, and what it costs."""

from lightning_nc.checking.check_network import check as check
from lightning_nc.checking.findings import Check as Check
