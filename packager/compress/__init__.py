"""What changes the model itself: quantisation, pruning, distillation, fusion."""
