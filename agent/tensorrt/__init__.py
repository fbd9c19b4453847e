"""TensorRT on the device: CUDA by ctypes, building with a ladder of retries, the engine cache, running with events.

Nothing here has run on a Jetson yet: what stands in for it in the tests is named there. "Not run on hardware" is said by
every report's reader who asks for it.
"""
