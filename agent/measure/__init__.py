"""The device's clock, sampler and statistics."""
