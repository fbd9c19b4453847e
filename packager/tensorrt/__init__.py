"""TensorRT on the host: versions, operators, rules, repairs, and the preflight with NVIDIA's own parser and builder."""
