"""PyTorch sources of the zoo's cases: each file is copied beside its weights as model.py, and stands alone there."""
