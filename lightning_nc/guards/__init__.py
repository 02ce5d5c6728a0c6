"""Everything that puts back: a network looked at is afterwards the network it was."""
