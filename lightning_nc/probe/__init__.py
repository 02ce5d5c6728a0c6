"""Looking at a network on fixed samples without leaving a trace."""

from lightning_nc.probe.blocks import find_blocks as find_blocks
from lightning_nc.probe.data import Probe as Probe
from lightning_nc.probe.layers import first_token as first_token
from lightning_nc.probe.layers import last_token as last_token
from lightning_nc.probe.layers import masked_mean as masked_mean
