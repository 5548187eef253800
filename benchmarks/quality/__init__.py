"""How well each loss finds unseen characters, beside pytorch-metric-learning's namesake."""
