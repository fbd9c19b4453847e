"""Microcontrollers: TFLite Micro on the host, C sources, plain C99 and emulated Cortex-M boards."""
