"""The commands of ``python -m lightning_nc``. Each imports what it needs when it runs."""
