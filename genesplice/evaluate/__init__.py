"""How well expression is predicted, compared with baselines and ablation controls."""
