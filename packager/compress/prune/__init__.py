"""Pruning: unstructured masks, whole channels and heads, schedules with fine-tuning, and what each of it bought."""
