"""Figures, explorers, reports and the runner of notebooks: they know results only."""
