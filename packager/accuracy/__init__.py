"""What a model's answers are worth: evaluation sets, metrics, paired drops, sensitivity, and the search that keeps them."""
